"""Sirius: unlabelled short Russian reviews, labelled, augmented, split, trained on, and a submission written.

The notebook `notebooks/sirius_pipeline.ipynb` holds the order of the stages; the stages stand beside
this file, their machinery in the folders, and the main README says what is where.
"""

import logging
import os

__version__ = "0.1.0"

# Read when torch is loaded. Threads that wait by spinning stall each other as soon as another process wants a core:
# a training step on two shared cores took 3 to 16 s so, 0.5 s with sleeping threads, and no longer on idle ones.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no telemetry; read when Ray starts

# On import, bitsandbytes asks for an optional CPU kernel from a hub and warns where there is none.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

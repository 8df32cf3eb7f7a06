"""Sirius: unlabelled short Russian reviews, labelled, augmented, split, trained on, and a submission written.

The notebook `notebooks/sirius_pipeline.ipynb` holds the order of the stages; each module here is one room of
the house, and the main README lists them.
"""

import logging

__version__ = "0.1.0"

# On import, bitsandbytes asks for an optional CPU kernel from a hub and warns where there is none.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

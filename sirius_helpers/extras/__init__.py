"""What one T4 never needs, each imported by its own command, or where a setting asks for it.

scaleout.py: labels and predictions for any number of reviews, on Ray workers (streaming.py). launch.py: training in
several processes. server.py: a model on an inference server. installing.py: the installation on Colab. contest.py: the
contest's files. Not here: the stages, which these call.
"""

"""What lies on disk: the user's tables, reviews and categories (`inputs.check_inputs`), and the files of a run.

A run: `runs.Run`, `journal.Journal`, `lock.run_lock`. Not here: what a stage does with a file.
"""

"""What lies on disk: the user's tables, reviews and categories, and the files of a run.

In: `tables.read_table` (any CSV), `reviews` and `categories` (what they mean), `inputs.check_inputs` (all at once).
A run: `runs.Run` (which stage made which file), `journal.Journal` (records that survive a kill), `lock.run_lock`.
Not here: what a stage does with a file. `decoding` is for the other modules alone.
"""

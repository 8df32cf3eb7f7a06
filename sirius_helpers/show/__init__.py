"""What a person sees in the notebook, and the form that is filled in there.

`tables` (what each stage made) and `evidence` (times, files, models) give HTML made by `html`; `pictures` draws,
`widgets` has drop-downs and buttons, `forms` turns fields into settings. `model_card` writes a run's page. Nothing
here runs a stage.
"""

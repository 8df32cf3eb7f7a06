"""What a person sees in the notebook, and the form that is filled in there.

`tables` (labels and synthetic reviews), `scoreboard` (training and evaluation) and `evidence` (times, files) give
HTML made by `html`; `pictures` draws, `widgets` has drop-downs and buttons, `forms` turns fields into settings.
`model_card` writes a run's page. Nothing here runs a stage.
"""

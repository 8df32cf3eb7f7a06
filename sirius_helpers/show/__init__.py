"""What a person sees in the notebook, and the form that is filled in there (`forms`). Nothing here runs a stage."""

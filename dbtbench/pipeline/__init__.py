"""The engines of the verbs: generate, evaluate, arms, sweeps and the data sets of a workspace."""

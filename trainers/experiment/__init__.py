"""Experiments: arms and seeds, each trained, evaluated and kept, from one plan."""

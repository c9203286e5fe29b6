"""Built-in models: one file a family, each a short declaration."""

"""Built-in plugins: models, backends and benchmarks, through the same hooks as anybody's package."""

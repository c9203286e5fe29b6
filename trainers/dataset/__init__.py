"""Building training sets and benchmarks from raw datasets: rules, references, texts, audits."""

"""Size, arithmetic, time and memory of fusion models, measured the same way for all."""

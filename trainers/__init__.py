"""The trainers: what turns a base model into an inspector, from pre-training exercises to EMIT's stages."""

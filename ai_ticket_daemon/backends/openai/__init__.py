"""Servers that speak the OpenAI protocol and nothing else."""

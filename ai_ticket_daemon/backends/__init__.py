"""The KoboldCPP and OpenAI-compatible servers that generate, and how one is chosen."""

"""The servers in service: their slots, their health, and which role serves."""

"""Telemetry: what an agent did, made safe and sent where it is wanted."""

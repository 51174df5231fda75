"""Trains teams of tool-using video agents with multi-agent reinforcement learning."""

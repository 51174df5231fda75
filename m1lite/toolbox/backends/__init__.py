"""Models behind the tools, one small file per need; each is loaded when it is first used, never at import."""

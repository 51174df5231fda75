"""The tools on models: what they take and write. Models stand in ``toolbox/backends``, stored results in index.py."""

"""A neutral benchmark of recurrent layers on CPUs. ``fastlstm bench`` runs it; docs/benchmark.md
says what it measures and how."""

"""Shared foundation without domain logic: errors, params, records, runtime, metrics, intervals, seeds."""

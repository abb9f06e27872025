"""This machine as ratios against peers and limits."""

"""Metrics of predictions against labels, and their titles in tables."""

TITLES = {"top1": "top-1", "map": "mAP", "f1@50": "F1@50", "ap50": "AP50"}

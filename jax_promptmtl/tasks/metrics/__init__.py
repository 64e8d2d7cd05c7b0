"""Metrics of predictions against labels, and what tables call them."""

TITLES = {"top1": "top-1", "map": "mAP", "f1@50": "F1@50", "ap50": "AP50"}

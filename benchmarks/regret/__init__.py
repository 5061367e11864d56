"""How far planners are from the best there is, and how often limits are met, on simulated clouds."""

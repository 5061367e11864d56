"""The local backend: functions are processes of this machine."""

"""What happens to this process: how it starts, the signals it gets, the watchdog, and where tests break it."""

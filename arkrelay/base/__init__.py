"""What every edge needs: log, metrics, tasks that stay alive, the frame of event streams. No decisions on mail."""

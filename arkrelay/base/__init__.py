"""What every edge needs: the log, the metrics, tasks that stay alive. No decisions about mail."""

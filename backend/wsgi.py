"""For a WSGI server of one's own: `gunicorn --worker-class gthread --threads 16 backend.wsgi:app`.

One worker process only: each would load the model for itself.
"""

import atexit

from backend.app import create_app
from backend.logs import configure_logging
from backend.private_files import keep_private
from backend.settings import Settings

_settings = Settings.from_environment()
keep_private(_settings)
configure_logging(_settings.secrets, is_json=_settings.log_format == "json")
app = create_app(_settings)
atexit.register(app.extensions["sam2"].stop)

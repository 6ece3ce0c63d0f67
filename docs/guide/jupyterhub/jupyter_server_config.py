"""What kling_nb needs on the servers of a hub's users: /etc/jupyter/jupyter_server_config.py of their image.

Kernels, terminals and the route for callbacks read the environment of the server. What the hub has put there
already is left as it is.
"""

import os

c = get_config()

#: Where the hub is reached from outside.
HUB = "https://hub.example.org"

# By itself, too, this is on where kling_nb is installed.
c.ServerApp.jpserver_extensions = {"kling_nb": True}

# The user is JUPYTERHUB_USER, which the hub sets. Passwords and keys stand in the hub's own configuration.
settings = {
    "KLING_NB_LEDGER": "postgresql://kling@db.example.org/kling",
    "KLING_NB_MEDIA": "s3://kling/clips",
    # Dollars: of a session, of a user in a day, of all users together in a day and in all.
    "KLING_NB_BUDGET": "5.00",
    "KLING_NB_USER_DAILY": "20.00",
    "KLING_NB_TEAM_DAILY": "100.00",
    "KLING_NB_TEAM_TOTAL": "2000.00",
}
if os.environ.get("KLING_NB_CALLBACK_SECRETS"):
    prefix = os.environ["JUPYTERHUB_SERVICE_PREFIX"]  # /user/ada/
    settings["KLING_NB_CALLBACK_URL"] = f"{HUB}{prefix}kling/callbacks/runflow"
for name, value in settings.items():
    os.environ.setdefault(name, value)

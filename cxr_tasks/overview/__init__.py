"""What people see of the project inside Airflow: champions, trainings, samples of the GAN, the data, and what runs.

Gathered from MLflow's REST API and rendered on the server, without MLflow's client and any other heavy library. What
only Airflow knows is given, so that nothing here imports Airflow; ``plugins/`` mounts the page.
"""

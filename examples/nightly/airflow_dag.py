"""A night as an Airflow DAG: one task; what it does within is the factory's own to go on with.

Airflow's retries run the same command with the same run id, which goes on where the night stopped.
"""

from datetime import UTC, datetime, timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

REFUSED = 3

with DAG(
    dag_id="controlnet_factory_night",
    schedule="30 2 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
):
    BashOperator(
        task_id="rebuild",
        bash_command=(
            "cd /opt/controlnet-factory && "  # EDIT
            "examples/cluster/submit.sh rebuild --config examples/nightly/nightly.yaml "
            "--run-id {{ ts_nodash }} --log-format json"
        ),
        append_env=True,
        skip_on_exit_code=REFUSED,  # refused: nothing to try again, and the page says why
        retries=3,
        retry_delay=timedelta(minutes=15),  # longer than the lease of a killed night lasts
    )

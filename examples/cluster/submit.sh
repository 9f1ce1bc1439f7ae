#!/usr/bin/env bash
# Submits a command of the factory to a cluster, shows its log and ends with its exit code:
#
#   export RAY_API_SERVER_ADDRESS=http://127.0.0.1:8265   # of `ray dashboard ray_cluster.yaml`
#   examples/cluster/submit.sh build canny --images s3://BUCKET/images --out s3://BUCKET/canny --actors 64
#
# The same line again, after whatever happened, goes on where the build stopped. Ctrl-C ends the
# following, not the job: `ray job list`, `ray job logs --follow ID`, `ray job stop ID`.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
: "${RAY_API_SERVER_ADDRESS:?is not set; for example http://127.0.0.1:8265}"
if [ $# -eq 0 ]; then
  sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi

id="factory-$(date -u +%Y%m%dT%H%M%SZ)-$$"
export PYTHONUNBUFFERED=1  # the job's log is shown as it comes, through a pipe too
if ray job submit --submission-id "$id" \
  --working-dir "$root" --runtime-env "$root/runtime_env.yaml" \
  -- python -m pipeline "$@"; then
  exit 0
fi

# `ray job submit` says 1 of every failure; the job's own code says which it was.
exec python - "$id" <<'PYTHON'
import sys

from ray.job_submission import JobSubmissionClient

job = JobSubmissionClient().get_job_info(sys.argv[1])
print(f"{sys.argv[1]}: {job.status}; {job.message}", file=sys.stderr)
sys.exit(job.driver_exit_code or 1)
PYTHON

#!/usr/bin/env bash
# Tries the overlay `production` on a real cluster: kills a worker, the head, Redis and a gateway under load,
# drains a node, rolls an upgrade, and prints what each cost the clients.
#
#   CONTEXT=my-test-cluster KEY=client-key bash k8s/trial.sh
#
# Only for a cluster that may break. Needs kubectl, curl, the KubeRay operator 1.7, a Gateway API with
# the class of production/cluster.yaml, the images, and the Secrets of docs/kubernetes.md. Has not been run
# on a cluster: shellcheck and the renderings of the overlays are all that stands behind it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

: "${CONTEXT:?name the context of a cluster that may break}"
: "${KEY:?a key of the service waypost-clients, as in the Secret waypost-api-keys}"
OVERLAY=${OVERLAY:-k8s/overlays/production}
# requests at a time, and seconds of load before and after a fault
CLIENTS=${CLIENTS:-16}
CALM_S=${CALM_S:-20}
HEAL_S=${HEAL_S:-120}
NAMESPACE=waypost
work=$(mktemp -d)
loaders=()

kube() { kubectl --context "$CONTEXT" --namespace "$NAMESPACE" "$@"; }
say() { printf '%s  %s\n' "$(date -u +%T)" "$*" >&2; }

finish() {
    touch "$work/stop"
    for pid in "${loaders[@]}"; do wait "$pid" 2>/dev/null || true; done
    [ -z "${forward:-}" ] || kill "$forward" 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT

ready() { # seconds
    kube wait rayservice/waypost --for=condition=RayServiceReady --timeout="$1s" >/dev/null
}

# The clients' way: the Service of the operator's Gateway, else that of NewCluster.
entrance() {
    local name
    for name in waypost-gateway-istio waypost; do
        if kube get service "$name" >/dev/null 2>&1; then
            printf 'service/%s' "$name"
            return
        fi
    done
    say "no Service leads to the graph: which class has the Gateway?"
    exit 1
}

# One client: an answer after the other, whole ones and streams in turns. A line each: time, way,
# HTTP status, seconds, and whether it ended as it should.
client() { # number
    local number=$1 turn=0 stream said begin end status outcome
    while [ ! -e "$work/stop" ]; do
        turn=$((turn + 1))
        stream=$([ $((turn % 2)) = 0 ] && echo true || echo false)
        begin=$(date +%s.%N)
        status=$(curl --silent --max-time 700 --output "$work/answer-$number" --write-out '%{http_code}' \
            --header "authorization: Bearer $KEY" --header 'content-type: application/json' \
            --data "{\"model\": \"auto\", \"max_tokens\": 64, \"stream\": $stream,
                     \"messages\": [{\"role\": \"user\", \"content\": \"What is $number + $turn?\"}]}" \
            "$URL/v1/chat/completions") || status=000
        end=$(date +%s.%N)
        said=$(tail -c 2000 "$work/answer-$number" 2>/dev/null || true)
        outcome=lost
        case $status in
        200)
            if [ "$stream" = true ]; then
                # an error event before the end is told, and no loss in silence
                case $said in
                *'data: [DONE]'*) outcome=whole ;;
                *'"error"'*) outcome=told ;;
                esac
                case $outcome$said in whole*'"error"'*) outcome=told ;; esac
            else
                case $said in *'"choices"'*) outcome=whole ;; esac
            fi
            ;;
        429 | 503) outcome=refused ;;
        esac
        printf '%s %s %s %s %s\n' "$begin" "$stream" "$status" "$(echo "$end - $begin" | bc)" "$outcome" \
            >>"$work/answers-$number"
        [ "$outcome" = whole ] || sleep 1
    done
}

# What a fault cost: answers by outcome, and seconds from the fault to the last one that was not whole.
tally() { # name, time of the fault, seconds until the graph was ready again
    cat "$work"/answers-* | awk -v name="$1" -v fault="$2" -v ready="$3" '
        $1 >= fault - 700 { count[$5]++ }
        $1 >= fault && $5 != "whole" && $1 - fault > last { last = $1 - fault }
        END { printf "| %s | %d | %d | %d | %d | %.0f s | %s |\n", name, count["whole"], count["refused"],
                     count["told"], count["lost"], last, ready }'
    rm -f "$work"/answers-*
}

try() { # name, command of the fault
    local name=$1 begin
    shift
    say "calm for $CALM_S s, then: $name"
    sleep "$CALM_S"
    begin=$(date +%s.%N)
    "$@"
    local healed='not in time' limit=$((SECONDS + HEAL_S * 5)) start=$SECONDS
    while [ $SECONDS -lt $limit ]; do
        if whole_again; then
            healed="$((SECONDS - start)) s"
            break
        fi
        sleep 2
    done
    sleep "$HEAL_S"
    tally "$name" "$begin" "$healed"
}

# Every pod of the overlay's least numbers is ready.
whole_again() {
    ready 1 2>/dev/null || return 1
    ! kube get pods --selector app.kubernetes.io/part-of=waypost --no-headers \
        --output custom-columns='READY:.status.conditions[?(@.type=="Ready")].status,NODE:.metadata.labels.ray\.io/node-type' \
        | grep -E '^(False|<none>) +(head|worker|<none>)' >/dev/null
}

one_of() { # labels
    kube get pods --selector "$1" --field-selector status.phase=Running --output name | head -n 1
}

kill_one() { # labels
    local pod
    pod=$(one_of "$1")
    say "killing $pod"
    kube delete "$pod" --grace-period=0 --force >/dev/null 2>&1
}

drain_one() {
    local node
    node=$(kube get "$(one_of app.kubernetes.io/component=gateway)" --output jsonpath='{.spec.nodeName}')
    say "draining node $node"
    kubectl --context "$CONTEXT" drain "$node" --ignore-daemonsets --delete-emptydir-data \
        --pod-selector app.kubernetes.io/component=gateway --timeout=900s >/dev/null
    kubectl --context "$CONTEXT" uncordon "$node" >/dev/null
}

# A change of the pods: the operator starts a second cluster and moves the requests.
upgrade() {
    say "rolling an upgrade"
    kube patch rayservice waypost --type json --patch '[{"op": "add",
        "path": "/spec/rayClusterConfig/headGroupSpec/template/metadata/annotations",
        "value": {"waypost.dev/trial": "'"$(date +%s)"'"}}]' >/dev/null
    kube wait rayservice/waypost --for=condition=UpgradeInProgress --timeout=300s >/dev/null
    kube wait rayservice/waypost --for=condition=UpgradeInProgress=false --timeout=3600s >/dev/null
}

say "applying $OVERLAY"
kubectl --context "$CONTEXT" apply -k "$OVERLAY" >/dev/null
ready 3600
if [ -z "${URL:-}" ]; then
    # a forwarded port ends with its pod: set URL to an address outside for figures of gateways
    kube port-forward "$(entrance)" 18000:"${PORT:-80}" >/dev/null &
    forward=$!
    URL=http://127.0.0.1:18000
    sleep 3
fi
curl --silent --fail --max-time 10 "$URL/readyz" >/dev/null || { say "$URL/readyz does not answer"; exit 1; }

say "load of $CLIENTS clients"
for number in $(seq "$CLIENTS"); do
    client "$number" &
    loaders+=($!)
done

echo "| fault | whole answers | refused with Retry-After | streams ended with an error event | lost | last after | pods ready after |"
echo "|---|---|---|---|---|---|---|"
try 'a worker with an LLM' kill_one app.kubernetes.io/component=llm
try 'the head' kill_one app.kubernetes.io/component=head
try 'Redis' kill_one app.kubernetes.io/component=redis
try 'a gateway' kill_one app.kubernetes.io/component=gateway
try 'a node is drained' drain_one
try 'an upgrade' upgrade

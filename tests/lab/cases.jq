# The table of cases as JSON: jq -Rs -f cases.jq cases
def fields: [splits(" *\\| *")] | map(gsub("^ +| +$"; ""));
[split("\n")[] | select(test("^\\s*(#|$)") | not)]
| reduce .[] as $line ([];
    if $line | test("^\\S") then
      ($line | capture("^(?<everywhere>\\+?)(?<name>\\S+) *(?<words>.*?) *$")) as $case
      | . + [$case | .everywhere = (.everywhere == "+") | .on = {}]
    else
      ($line | fields) as $f
      | .[-1].on[$f[0]] = {
          verdict: $f[1], start: $f[2], stopped: ($f[3] == "stopped"),
          fixed: ($f[4] // "" | if . == "" then null else . end),
          plugged: ($f[5] // "" | if . == "" then null else . end),
          firmware: ($f[6] // "" | if . == "" then null else . end),
          locked: ($f[7] // "" | if . == "" then null else . end)
        }
    end)

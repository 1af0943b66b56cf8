# docs/lab.md from lab-results.json: jq -r -f table.jq lab-results.json
def code: if . == "" then "" else "`\(.)`" end;
def cell: if . == null then "" else gsub("\\|"; "\\|") end;

. as $all
| (.hosts | keys) as $hosts
| ($hosts[] | select(startswith("intel"))) as $intel
| ($hosts | map(select(startswith("amd"))) | sort_by(split("-")[1] | split(".") | map(tonumber))) as [$amd, $other]
| def said($host; $case): [$all.rows[] | select(.host == $host and .case == $case) | {key: .step, value: .observed}] | from_entries;
"# What was predicted and what happened",
"",
"Written by `tests/lab/run --record` from [lab-results.json](lab-results.json), which has what was predicted beside what was",
"observed for each of its \(.rows | length) rows. [tests/lab](../tests/lab/README.md) says what the words mean.",
"",
"| host | IOMMU | kernel | QEMU | libvirt | rows | not as predicted |",
"|---|---|---|---|---|---|---|",
($hosts[] as $h | .hosts[$h] | "| \($h) | \(.iommu) | \(.kernel) | \(.qemu | sub("QEMU emulator version "; "") | sub(" .*"; "")) | \(.libvirt | sub(".* "; "")) | "
  + "\([$all.rows[] | select(.host == $h)] | length) | \([$all.rows[] | select(.host == $h and (.as_predicted | not))] | length) |"),
"",
"## Hosts",
"",
"| what | \($hosts | join(" | ")) |",
"|---|\($hosts | map("---") | join("|"))|",
([.rows[] | select(.case == "the host") | .step] | unique[] as $step
  | "| \($step) | \($hosts | map(. as $h | [$all.rows[] | select(.host == $h and .case == "the host" and .step == $step) | .observed][0] | if . == "" then "none" else . end | cell) | join(" | ")) |"),
"",
"## Guests",
"",
"\($amd) is complete; on \($intel) and \($other) all guests are judged and some of them started.",
"",
"| guest | made of | verdict | `virsh start` | with the hook | after `fix`, or hot-plug | \($intel): verdict | `virsh start`, or hot-plug | \($other) |",
"|---|---|---|---|---|---|---|---|---|",
(.guests[] | .name as $name | said($amd; $name) as $a | said($intel; $name) as $i | said($other; $name) as $o
  | "| `\($name)` | \(.words | code) | \($a.verdict | cell) | \($a.start | cell) | \($a["start with the hook"] | if . == $a.start then "the same" else . end | cell) | "
  + "\($a["start after fix"] // $a["hot-plug"] | cell) | \($i.verdict | cell) | \([$i.start, $i["hot-plug"]] | map(select(.)) | join("; ") | cell) | "
  + (if $o | to_entries | all(.value == $a[.key]) then "the same, \($o | length) of \($a | length)" else $o | tostring | cell end) + " |"),
"",
"The hook as libvirt calls it, for `dimm-first`, on \($amd):",
"",
(.rows[] | select(.host == $amd and .case == "dimm-first" and (.step | startswith("hook"))) | "- \(.step | sub("hook, "; "")): \(.observed)")

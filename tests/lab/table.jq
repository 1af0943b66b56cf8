# docs/lab.md from docs/lab-results.json: jq -r -f table.jq lab-results.json

def columns: "| " + join(" | ") + " |";
def lines: map("---") | "|" + join("|") + "|";
def escaped: (. // "") | gsub("\\s*\n\\s*"; " ") | gsub("\\|"; "\\|");

.rows as $rows
| .hosts as $hosts
| ($hosts | keys) as $names
# The oldest kernel is the one with all of the table.
| ($names | map(select(startswith("amd"))) | sort_by(split("-")[1] | split(".") | map(tonumber))) as [$amd, $other]
| first($names[] | select(startswith("intel"))) as $intel
| first($names[] | select(startswith("narrow"))) as $narrow
| def of($host; $case): [$rows[] | select(.host == $host and .case == $case) | {key: .step, value: .observed}]
    | from_entries;
"# Results of the lab",
"",
"`tests/lab/run --record` writes this page from [lab-results.json](lab-results.json), which has every prediction and every",
"observation. [tests/lab](../tests/lab/README.md) explains the steps and the words.",
"",
(["host", "IOMMU", "kernel", "QEMU", "libvirt", "rows", "not as predicted"] | columns, lines),
($names[] as $host | $hosts[$host]
  | [$host, .iommu, .kernel, (.qemu | ltrimstr("QEMU emulator version ") | split(" ")[0]),
     (.libvirt | split(" ")[-1]),
     ($rows | map(select(.host == $host)) | length | tostring),
     ($rows | map(select(.host == $host and (.as_predicted | not))) | length | tostring)]
  | columns),
"",
"## Hosts",
"",
(["what"] + $names | columns, lines),
([$rows[] | select(.case == "the host").step] | unique[] as $step
  | [$step] + [$names[] as $host | of($host; "the host")[$step] | if . == "" then "none" else escaped end] | columns),
([$rows[] | select(.step | startswith("hook,")).step] | unique[] as $step
  | ["`dimm-first`: \($step)"] + [$names[] as $host | of($host; "dimm-first")[$step] | escaped] | columns),
"",
"## Guests",
"",
"\($amd) starts all of them; \($intel) and \($other) evaluate all and start some.",
"",
(["guest", "made of", "verdict", "`virsh start`", "with the hook", "after `fix`, hot-plug, or firmware",
  "\($intel): verdict", "`virsh start`, and hot-plug", $other] | columns, lines),
(.guests[] as $guest | of($amd; $guest.name) as $a | of($intel; $guest.name) as $i | of($other; $guest.name) as $o
  | ["`\($guest.name)`", "`\($guest.words)`", ($a.verdict | escaped), ($a.start | escaped),
     (if $a["start with the hook"] == $a.start then "the same" else $a["start with the hook"] | escaped end),
     ($a["start after fix"] // $a["hot-plug"] // $a.firmware | escaped), ($i.verdict | escaped),
     ([$i.start, $i["hot-plug"]] | map(select(.)) | join("; ") | escaped),
     if $o | to_entries | all(.value == $a[.key]) then "the same (\($o | length) of \($a | length))"
     else $o | tojson | escaped
     end]
  | columns),
"",
"## Guests of an IOMMU with 39 bits",
"",
"The guests that \($narrow) starts; the other machines evaluate them, too.",
"",
(["guest", "made of", "verdict", "`virsh start`", "with the hook"] | columns, lines),
(.guests[] as $guest | of($narrow; $guest.name) as $n | select($n.verdict)
  | ["`\($guest.name)`", "`\($guest.words)`", ($n.verdict | escaped), ($n.start | escaped),
     (if $n["start with the hook"] == $n.start then "the same" else $n["start with the hook"] | escaped end)]
  | columns)

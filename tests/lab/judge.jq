# What one boot reported, held against the table of cases:
#
#   jq -n --arg host amd-6.1 --arg iommu amd --slurpfile cases … --rawfile report … --slurpfile outside … -f judge.jq
#
# outside is what `check` says of the files on another machine with the profile that was taken out.

def parts($mark): ("\n" + .) | split("\n" + $mark) | .[1:]
  | map(split("\n") | {key: .[0], value: (.[1:] | join("\n"))}) | from_entries;

def sections: $report | gsub("\r"; "") | gsub("[^\n]*TCG doesn't support requested feature[^\n]*\n"; "") | parts("=== ");

# What became of a start, in the words of the table.
def outcome:
  def address($errno): capture("vfio_dma_map\\(0x[0-9a-f]+, (?<at>0x[0-9a-f]+), [^)]*\\) = " + $errno).at;
  if . == null then "nothing is said"
  elif test("= -22 ") then "refused " + address("-22")
  elif test("= -12 ") then "accepted " + address("-12")
  elif test("(^|\n)error: Failed to (start|define)") | not then
    if test("(^|\n)paused") then "starts" else gsub("\\s*\n\\s*"; " ") end
  else
    [splits("\n") | select(test("^(shut off|error: Failed to .*|error: Requested operation is not valid.*|)$") | not)]
    | map(sub("^error: "; "") | sub("^internal error: [^:]*: "; "") | sub("^[-0-9T:.]+Z qemu-system-x86_64.real: "; ""))
    | join(" ")
  end;

# Stopped by our line, and QEMU not even started.
def hooked($name; $started):
  if contains("Hook script execution failed") and contains("iova-preflight: guest \($name): ")
  then if $started | has($name) then "stopped after QEMU was started" else "stopped" end
  else outcome end;

def plugged:
  ([splits("\n") | select(test("^(shut off|paused)"))] | last // "no state") as $state
  | if test("= -22 ") then outcome
    elif contains("unable to continue") then "vfio: DMA mapping failed, unable to continue"
    elif test("error: Failed to attach") then capture("error: Failed to attach[^\n]*\nerror: (?<text>[^\n]*)").text
    else "attached" end
  | . + "; " + $state;

def verdict: ([.findings[]?.rule] | reduce .[] as $r ([]; if index($r) then . else . + [$r] end) | join(", ")) as $rules
  | .verdict + if $rules == "" then "" else ": " + $rules end;

def row($case; $step; $predicted; $observed): {host: $host, case: $case, step: $step, predicted: $predicted, observed: $observed}
  | .as_predicted = (.observed == .predicted
      or (.step != "verdict" and (.predicted | test("^(starts|stopped|(accepted|refused) 0x[0-9a-f]*)$") | not)
          and (.observed | contains($predicted))));

# What a verdict says, without where in the XML it stands.
def essence: {key: .name, value: {verdict, machine: .machine.canonical, cpu, memory, layout, passthrough,
  findings: [.findings[]? | {rule, severity, range}], changes: .fix.changes}};

sections as $in
| ($in.define | parts("@")) as $defined
| ($in.start | parts("@")) as $start
| ($in["start with the hook"] | parts("@")) as $hook
| ($in["started with the hook"] | parts("@")) as $started
| ($in["start after fix"] | parts("@")) as $fixed
| ($in["hot-plug"] | parts("@")) as $plug
| ($in["own group"] | parts("@")) as $own
| ($in["verdicts of guests"] | fromjson.guests) as $guests
| ($in["verdicts of files"] | fromjson.guests) as $files
| {
    host: {key: $host, value: {kernel: ($in.kernel | rtrimstr("\n")), qemu: ($in.qemu | split("\n")[0]),
      libvirt: ($in.libvirt | rtrimstr("\n")), iommu: ($in.iommu | split("\n")[0])}},
    rows: [
      ($in.group | contains("0x000000fd00000000 0x000000ffffffffff reserved")) as $reserves
      | row("the host"; "the group of the card reserves 1012-1024 GiB"; if $iommu == "amd" then "true" else "false" end; $reserves | tostring),
        row("the host"; "profile: the IOMMU"; "kind = \"\($iommu)\""; $in.profile | split("\n") | map(capture("^(?<kind>kind = \"[a-z]+\")").kind) | first),
        row("the host"; "profile: has the range"; $reserves | tostring; $in.profile | test("start = 0xfd00000000\nend = 0xffffffffff\n") | tostring),
        row("the host"; "verdicts outside, with the profile"; "\($cases[0] | length) the same";
          if $files == $outside[0].guests then "\($files | length) the same" else "not the same" end),
        row("the host"; "verdicts of the defined guests"; "the same";
          ($files | map(essence) | from_entries) as $by_name
          | [$guests[] | select(essence.value != $by_name[.name]) | .name] | if . == [] and ($guests | length) > 25 then "the same" else join(", ") end),
        row("the host"; "QEMU left behind"; ""; $in["left behind"]),
        row("the host"; "the card after a managed guest was stopped"; "e1000e"; $hook["the driver of the card"] | rtrimstr("\n")),
        if $iommu == "amd" then
          row("dimm-first"; "hook, the range in the card's group only"; "one line, exit status 1";
            $own["the range in the group of the card only"]
            | if test("^iova-preflight: guest dimm-first: [^\n]*\nexit status 1\n*$") then "one line, exit status 1" else . end),
          row("dimm-first"; "hook, the range in every other group"; "exit status 0";
            $own["the range in every other group"] | rtrimstr("\n"))
        else empty end,
      ($cases[0][] | .name as $name | (.on[$iommu] // .on.any) as $p
        | (first($guests[], $files[] | select(.name == $name) | verdict) // "none") as $verdict
        | row($name; "verdict"; $p.verdict; $verdict),
          if $start | has($name) then
            row($name; "start"; $p.start; ($start[$name] | if contains("failed to get domain") then $defined[$name] else . end) | outcome),
            row($name; "start with the hook"; if $p.stopped then "stopped" else $p.start end;
              ($hook[$name] // "" | if contains("failed to get domain") then $defined[$name] else . end) | hooked($name; $started))
          else empty end,
          if $fixed | has($name) then row($name; "start after fix"; $p.fixed; $fixed[$name] | outcome) else empty end,
          if $plug | has($name) then row($name; "hot-plug"; $p.plugged; $plug[$name] | plugged) else empty end)
    ]
  }

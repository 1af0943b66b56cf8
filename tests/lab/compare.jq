# Compares what one boot reported with the table of cases:
#
#   jq -n --arg host amd-6.1 --arg iommu amd --rawfile report … --slurpfile cases … --slurpfile outside … \
#       -f compare.jq
#
# outside is what `check` says of the files on another machine, with the profile that was taken out.

# The lines below each line that begins with a mark.
def parts($mark): ("\n" + .) | split("\n" + $mark) | .[1:]
  | map(split("\n") | {key: .[0], value: (.[1:] | join("\n"))}) | from_entries;

def sections: [$report | split("\n")[] | select(contains("TCG doesn't support") | not)] | join("\n") | parts("=== ");

# How a start ended, in the words of the table.
def outcome:
  def address($errno): capture("vfio_dma_map\\(0x[0-9a-f]+, (?<at>0x[0-9a-f]+), [^)]*\\) = " + $errno).at;
  if . == null then "nothing is said"
  elif test("= -22 ") then "refused " + address("-22")
  elif test("= -12 ") then "accepted " + address("-12")
  elif test("(^|\n)error: Failed to (start|define)") then
    [splits("\n")
      | select(test("^(shut off|error: Failed to .*|error: Requested operation is not valid.*|)$") | not)
      | sub("^error: "; "") | sub("^internal error: [^:]*: "; "") | sub("^[-0-9T:.]+Z qemu-system-x86_64.real: "; "")]
    | join(" ")
  elif test("(^|\n)paused") then "starts"
  else gsub("\\s*\n\\s*"; " ")
  end;

# The same with the hook: stopped by our line, and QEMU not even started.
def hooked($name; $started):
  if contains("Hook script execution failed") and contains("iova-preflight: guest \($name): ")
  then if $started | has($name) then "stopped after QEMU was started" else "stopped" end
  else outcome end;

# How a running guest fared after something was attached.
def plugged:
  ([splits("\n") | select(test("^(shut off|paused)"))] | last // "no state") as $state
  | if test("= -22 ") then outcome
    elif contains("unable to continue") then "vfio: DMA mapping failed, unable to continue"
    elif test("error: Failed to attach") then capture("error: Failed to attach[^\n]*\nerror: (?<text>[^\n]*)").text
    else "attached"
    end
  | . + "; " + $state;

# What QEMU said when the firmware of a guest had enabled a BAR, and how the guest fares, without pointers.
def enabled:
  ([splits("\n") | select(test("^(shut off|running|paused)"))] | last // "no state") as $state
  | [splits("\n") | select(test("VFIO_MAP_DMA|vfio_dma_map"))
      | sub("\\(0x[0-9a-f]+, "; "(0x…, ") | sub(" 0x[0-9a-f]+\\) "; " 0x…) ")]
  | . + [$state] | join("; ");

# What a QEMU may lock, and has locked, in bytes.
def locked:
  capture("Max locked memory +(?<may>[0-9]+)").may + ", "
    + (capture("VmLck:\\s*(?<kib>[0-9]+) kB").kib | tonumber * 1024 | tostring);

def hex: if . < 16 then "0123456789abcdef"[.:. + 1] else (. / 16 | floor | hex) + (. % 16 | hex) end;

# A verdict and the rules behind it.
def verdict:
  (reduce (.findings[]? | .rule) as $rule ([]; if index($rule) then . else . + [$rule] end)) as $rules
  | .verdict + if $rules == [] then "" else ": " + ($rules | join(", ")) end;

# A verdict without places in the XML.
def essence: {
    verdict, cpu, memory, layout, passthrough, machine: .machine.canonical, changes: .fix.changes,
    findings: [.findings[]? | {rule, severity, range}]
  };

# Outcomes have to be the same; of an error, the table has a part.
def row($case; $step; $predicted; $observed):
  {host: $host, case: $case, step: $step, predicted: $predicted, observed: $observed}
  | .as_predicted = (
      .observed == .predicted
      or (.step != "verdict" and (.predicted | test("^(starts|stopped|(accepted|refused) 0x[0-9a-f]+|)$") | not)
          and (.observed | contains($predicted))));

# The cases that this machine has.
def own_cases: $cases[0][] | select($iommu != "narrow" or .on.narrow);

def of_host($in; $hook; $own; $by_hand; $guests; $files):
  ($in.group | contains("0x000000fd00000000 0x000000ffffffffff reserved")) as $reserves
  | ($files | map({key: .name, value: essence}) | from_entries) as $by_name
  | [$guests[] | select(essence != $by_name[.name]).name] as $others
  | row("the host"; "the card's group reserves 1012-1024 GiB"; $iommu == "amd" | tostring; $reserves | tostring),
    row("the host"; "profile: the IOMMU"; "kind = \"\(if $iommu == "amd" then "amd" else "intel" end)\"";
      # The first kind is the IOMMU's; the firmware has one, too.
      first($in.profile | split("\n")[] | capture("^(?<kind>kind = \"[a-z]+\")").kind) // "none"),
    row("the host"; "profile: has the range"; $reserves | tostring;
      $in.profile | test("start = 0xfd00000000\nend = 0xffffffffff\n") | tostring),
    row("the host"; "verdicts outside, with the profile"; "\([own_cases] | length) the same";
      if $files == $outside[0].guests then "\($files | length) the same" else "not the same" end),
    row("the host"; "verdicts of the defined guests"; "the same";
      if $others == [] and ($guests | length) >= ([own_cases] | length / 2) then "the same"
      else "not of: " + ($others | join(", "))
      end),
    row("the host"; "QEMU of nobody, which may lock 128 MiB of 512"; "accepted 0x0";
      $by_hand["nobody may lock 128 MiB of 512"] | outcome),
    row("the host"; "the same of root, with CAP_IPC_LOCK"; "runs";
      $by_hand["root may lock 128 MiB of 512"] | if test("exit status 124") then "runs" else outcome end),
    row("the host"; "QEMU left behind"; ""; $in["left behind"]),
    row("the host"; "hook status"; "exit status 0";
      [$in["the hook"] | split("\n")[] | select(startswith("exit"))] | join("")),
    row("the host"; "the card after a managed guest was stopped"; "e1000e";
      $hook["the driver of the card"] | rtrimstr("\n")),
    if $iommu == "amd" then
      row("dimm-first"; "hook, the range in the card's group only"; "one line, exit status 1";
        $own["the range in the group of the card only"]
        | if test("^iova-preflight: guest dimm-first: [^\n]*\nexit status 1\n*$") then "one line, exit status 1"
          else .
          end),
      row("dimm-first"; "hook, the range in every other group"; "exit status 0";
        $own["the range in every other group"] | rtrimstr("\n"))
    else empty
    end;

sections as $in
| ($in.define | parts("@")) as $defined
| ($in.start | parts("@")) as $start
| ($in["start with the hook"] | parts("@")) as $hook
| ($in["started with the hook"] | parts("@")) as $started
| ($in["start after fix"] | parts("@")) as $fixed
| ($in["hot-plug"] | parts("@")) as $plug
| ($in["own group"] | parts("@")) as $own
| ($in.firmware | parts("@")) as $firmware
| ($in.explained | parts("@")) as $explained
| ($in.locked | parts("@")) as $locked
| ($in.running | parts("@")) as $running
| ($in["verdicts of guests"] | fromjson.guests) as $guests
| ($in["verdicts of files"] | fromjson.guests) as $files
# A guest that libvirt does not define cannot be started; what counts is why.
| def or_why_not($name): if . != null and contains("failed to get domain") then $defined[$name] else . end;
  {
    host: {
      key: $host,
      value: {
        kernel: ($in.kernel | rtrimstr("\n")), qemu: ($in.qemu | split("\n")[0]),
        libvirt: ($in.libvirt | rtrimstr("\n")), iommu: ($in.iommu | split("\n")[0])
      }
    },
    rows: [
      of_host($in; $hook; $own; ($in["by hand"] | parts("@")); $guests; $files),
      (own_cases | .name as $name | (.on[$iommu] // .on.any) as $expected
        | row($name; "verdict"; $expected.verdict;
            first(($guests[], $files[]) | select(.name == $name) | verdict) // "none"),
          if $start | has($name) then
            row($name; "start"; $expected.start; $start[$name] | or_why_not($name) | outcome),
            row($name; "start with the hook"; if $expected.stopped then "stopped" else $expected.start end;
              $hook[$name] // "" | or_why_not($name) | hooked($name; $started))
          else empty
          end,
          if $fixed | has($name) then row($name; "start after fix"; $expected.fixed; $fixed[$name] | outcome)
          else empty
          end,
          if $plug | has($name) then row($name; "hot-plug"; $expected.plugged; $plug[$name] | plugged)
          else empty
          end,
          if $firmware | has($name) then
            row($name; "firmware"; $expected.firmware; $firmware[$name] | enabled),
            row($name; "firmware: address of the BAR";
              [$guests[] | select(.name == $name).layout.bars[].address | "0x" + hex] | join(", ");
              $firmware[$name] | outcome | ltrimstr("refused ")),
            row($name; "firmware: `explain` of the log"; $expected.verdict | sub(".*: "; "");
              [$explained[$name] | fromjson.messages[].rule // empty] | join(", "))
          else empty
          end,
          if $locked | has($name) then
            row($name; "locked memory: limit, in use"; $expected.locked; $locked[$name] | locked),
            row($name; "check --running"; $expected.verdict + "; " + ($expected.locked | sub(",.*"; ""));
              first($running[$name] | fromjson.guests[] | select(.name == $name)
                | verdict + "; " + (.process.locked_memory_limit | tostring)) // "none")
          else empty
          end)
    ]
  }

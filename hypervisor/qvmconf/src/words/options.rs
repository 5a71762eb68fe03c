//! The option words.

use super::Context::{Cpu, Guest, Pass, Reserve, Vdev};
use super::Effect::{Neither, Opens, Prefix};
use super::Repeat::{Accumulates, LastWins, LastWinsEach};
use super::Status::{Never, NotYet, Supported};
use super::{Context, Effect, Keyword, Parameter, Repeat, Row, Shape, Status};

const fn parameter(name: &'static str, shape: Shape) -> Parameter {
    Parameter { name, shape }
}

#[allow(clippy::too_many_arguments, reason = "one column each; the table below is read as a table")]
const fn row(
    keyword: Keyword,
    spelling: &'static str,
    parameters: &'static [Parameter],
    within: Context,
    effect: Effect,
    repeat: Repeat,
    status: Status,
    help: &'static str,
) -> Row {
    Row { keyword, spelling, within, effect, parameters, repeat, status, help }
}

const NONE: &[Parameter] = &[];
const NAME: &[Parameter] = &[parameter("NAME", Shape::Text)];
const RESTART: &[Parameter] = &[parameter("never|on-failure|always[,COUNT/SECONDS[,stay|reset]]", Shape::Text)];
const FOLDER: &[Parameter] = &[parameter("FOLDER", Shape::Text)];
const TEXT: &[Parameter] = &[parameter("TEXT", Shape::Text)];
const REGION: &[Parameter] = &[parameter("[START,]LENGTH", Shape::Region)];
const FILE: &[Parameter] = &[parameter("[ADDRESS,]FILE", Shape::File)];
const ADDRESS: &[Parameter] = &[parameter("ADDRESS", Shape::Address)];
const TYPE: &[Parameter] = &[parameter("TYPE", Shape::Vdev)];
const VARIABLE: &[Parameter] = &[parameter("VARIABLE", Shape::Variable), parameter("VALUE", Shape::VariableValue)];
const POLICY: &[Parameter] = &[
    parameter("TYPE", Shape::Choice(&["instruction", "reference", "register"])),
    parameter("ACTION", Shape::Choice(&["abort", "fail", "ignore"])),
];
const CLASS: &[Parameter] = &[parameter("CLASS", Shape::Choice(&["qualified"]))];
const FILTERS: &[Parameter] = &[parameter("FILTER[,FILTER...]", Shape::Filters)];
const LOG: &[Parameter] = &[
    parameter("FILTER[,FILTER...]", Shape::Filters),
    parameter("DESTINATION", Shape::Choice(&["stdout", "stderr", "slog", "none"])),
];
const SCHED: &[Parameter] = &[parameter("PRIORITY[r|f|o]", Shape::Scheduling)];
const SERVER: &[Parameter] = &[parameter("PRIORITY[r|f|o]|HI,LO,MAXREPL,PERIOD,BUDGET s", Shape::Scheduling)];
const CPUS: &[Parameter] = &[parameter("CPU[,CPU...]", Shape::Cpus)];
const PLACE: &[Parameter] = &[parameter("[mem:]ADDRESS|pci:DEVICE[.FUNCTION]", Shape::Place)];
const RANGE: &[Parameter] = &[parameter("START,LENGTH", Shape::Range)];
const PASSED: &[Parameter] = &[parameter("[mem:]REGION,LENGTH,ATTRIBUTES[=HOST]|pci:[GUEST=]HOST", Shape::PassedPlace)];
const PASSED_LINE: &[Parameter] = &[parameter("PIC:LINE[,u][=HOST]", Shape::PassedInterrupt)];
const LINE: &[Parameter] = &[parameter("PIC:LINE", Shape::Interrupt)];

/// Every option word of the original, and where it may stand.
#[rustfmt::skip]
pub static ROWS: &[Row] = &[
    row(Keyword::System,      "system",      NAME,     Guest, Neither, LastWins, Supported, "Names the VM. Stands first."),
    row(Keyword::Ram,         "ram",         REGION,   Guest, Neither, Accumulates, Supported, "Memory that the guest reads and writes. Without a start: just above the highest `ram` or `rom` before it, the first at 0x80000000."),
    row(Keyword::Rom,         "rom",         REGION,   Guest, Neither, Accumulates, Supported, "Memory that the guest only reads, left out of the memory map it is given."),
    row(Keyword::Reserve,     "reserve",     NONE,     Guest, Opens(Reserve), Accumulates, Supported, "Keeps addresses and interrupts free of what is placed automatically."),
    row(Keyword::Loc,         "loc",         RANGE,    Reserve, Neither, Accumulates, Supported, "The addresses."),
    row(Keyword::Intr,        "intr",        LINE,     Reserve, Neither, Accumulates, Supported, "The interrupt."),
    row(Keyword::Cpu,         "cpu",         NONE,     Guest, Opens(Cpu), Accumulates, Supported, "A virtual CPU. None at all means one."),
    row(Keyword::Sched,       "sched",       SERVER,   Cpu,   Neither, LastWins, Supported, "Priority, 1 to 255, and policy: r round robin (default), f first in first out, o other. Or a sporadic server: priority HI for BUDGET ns in each PERIOD ns, else LO."),
    row(Keyword::Runmask,     "runmask",     CPUS,     Cpu,   Neither, LastWins, Supported, "The physical CPUs it may run on; without it, all."),
    row(Keyword::Cluster,     "cluster",     NAME,     Cpu,   Neither, LastWins, Supported, "Runs only on the physical CPUs of a named cluster."),
    row(Keyword::Partition,   "partition",   NAME,     Cpu,   Neither, LastWins, Supported, "The adaptive partition whose budget it uses; without it, `System`."),
    row(Keyword::Load,        "load",        FILE,     Guest, Neither, Accumulates, Supported, "Copies a file of the boot archive into memory that was given before. The format is detected."),
    row(Keyword::Guest,       "guest",       NONE,     Guest, Prefix, Accumulates, Supported, "`guest load [ADDRESS,]FILE`: what the guest runs, in any of the formats; it is started even if others could be."),
    row(Keyword::Data,        "data",        NONE,     Guest, Prefix, Accumulates, Supported, "`data load [ADDRESS,]FILE`: plain bytes, whatever they look like."),
    row(Keyword::Initrd,      "initrd",      NONE,     Guest, Prefix, Accumulates, Supported, "`initrd load FILE`: a RAM disk, announced to the guest in its device tree."),
    row(Keyword::Fdt,         "fdt",         NONE,     Guest, Prefix, Accumulates, Supported, "`fdt load FILE`: a device tree, merged over the generated one."),
    row(Keyword::Acpi,        "acpi",        NONE,     Guest, Prefix, Accumulates, Never("ACPI tables are for x86 guests"), "`acpi load FILE`: an extra ACPI table."),
    row(Keyword::Pass,        "pass",        NONE,     Guest, Opens(Pass), Accumulates, Supported, "Gives a physical device to the guest; see pass.md."),
    row(Keyword::Loc,         "loc",         PASSED,   Pass,  Neither, Accumulates, Supported, "Its registers: whole pages at REGION for the guest, at HOST of the machine, or at the same address. Attributes are `r`, `w`, and `n` or `d`, if the device reaches memory by itself; `c`, `e`, `m`, `s`, `t`, `x` are known and refused. Or a function of PCI: BUS:DEVICE[.FUNCTION] or VENDOR/DEVICE of the machine, in front of it where the guest has it."),
    row(Keyword::WithoutReset, "without-reset", NONE, Pass, Neither, LastWins, Supported, "Of a function of PCI: it need not be one that can be reset. Not of the original; see pass.md."),
    row(Keyword::Uncontained, "uncontained", NONE,     Pass,  Neither, LastWins, Supported, "It reaches all memory of the machine, and nothing keeps it from that: for a device with `d`, or a function of PCI, that is behind no SMMU. The guest's RAM is at the same addresses of the machine."),
    row(Keyword::Intr,        "intr",        PASSED_LINE, Pass, Neither, Accumulates, Supported, "Its interrupt: LINE for the guest, the INTID HOST of the machine, or the same number. `u`: edge-triggered."),
    row(Keyword::Vdev,        "vdev",        TYPE,     Guest, Opens(Vdev), Accumulates, Supported, "A virtual device."),
    row(Keyword::Loc,         "loc",         PLACE,    Vdev,  Neither, LastWins, Supported, "Where its registers are."),
    row(Keyword::Intr,        "intr",        LINE,     Vdev,  Neither, LastWins, Supported, "The interrupt it asserts; LINE is the INTID, so `gic:37` is SPI 5."),
    row(Keyword::Name,        "name",        NAME,     Vdev,  Neither, LastWins, Supported, "Its name; without it, its type."),
    row(Keyword::Sched,       "sched",       SCHED,    Vdev,  Neither, LastWins, Supported, "Gives it a thread of its own at this priority, which wakes it for input, timers and pulses; its workers have it too. Without it the VM's own thread does, at the priority of its most urgent vCPU, 20 at least."),
    row(Keyword::Log,         "log",         FILTERS,  Vdev,  Neither, LastWins, Supported, "Which of its messages are logged, whatever `logger` says."),
    row(Keyword::Hostvector,  "hostvector",  TEXT,     Vdev,  Neither, LastWins, NotYet, "Of an interrupt controller: the first host interrupt of its lines."),
    row(Keyword::Cmdline,     "cmdline",     TEXT,     Guest, Neither, LastWins, Supported, "Command line for the guest, in its device tree."),
    row(Keyword::Entry,       "entry",       ADDRESS,  Guest, Neither, LastWins, Supported, "Where the first virtual CPU starts, whatever the image says."),
    row(Keyword::Set,         "set",         VARIABLE, Guest, Neither, LastWinsEach, Supported, "Sets a variable; see below."),
    row(Keyword::Unsupported, "unsupported", POLICY,   Guest, Neither, LastWinsEach, Supported, "What to do with what cannot be emulated: `instruction` and `register` `fail`, `reference` is `ignore`d unless this says otherwise."),
    row(Keyword::Logger,      "logger",      LOG,      Guest, Neither, Accumulates, Supported, "Which messages go where; without any, `fatal,internal,error,warn,info` go to `stderr`."),
    row(Keyword::Dump,        "dump",        FOLDER,   Guest, Neither, LastWins, Supported, "SIGUSR2 dumps the guest, to a file in RAM of this folder; see dump.md."),
    row(Keyword::Dryrun,      "dryrun",      NONE,     Guest, Neither, LastWins, Supported, "Builds and checks everything and runs nothing."),
    row(Keyword::OnExit,      "on-exit",     RESTART,  Guest, Neither, LastWins, Supported, "Whether it is started again when it has ended. Not of the original; see below."),
    row(Keyword::Debug,       "debug",       NONE,     Guest, Neither, LastWins, NotYet, "Seen in configurations of the original; meaning not published."),
    row(Keyword::Safety,      "safety",      CLASS,    Guest, Neither, LastWins, Supported, "Accepts only vdevs of this safety class: those that are no examples and no aids for development (`use NAME` says which); and no `pass` that nothing brings to rest."),
    row(Keyword::Smmu,        "smmu",        NAME,     Guest, Neither, Accumulates, NotYet, "Ties passed devices to an SMMU."),
    row(Keyword::User,        "user",        NAME,     Guest, Neither, LastWins, Never("there are no user accounts whose rights a VM could have"), "Gives up privileges after the set-up."),
    row(Keyword::Generate,    "generate",    NAME,     Guest, Neither, LastWins, NotYet, "Which tables are generated for the guest."),
];

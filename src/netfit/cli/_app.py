"""Which commands there are. Each is named by text and imported when it is called, so ``--help`` costs nothing."""

from cyclopts import App, Group

from netfit._version import __version__

from ._examples import EXAMPLES
from ._structure import structure

__all__ = ["app"]

_EPILOGUE = (
    "netfit COMMAND --help shows its options and an example. Exit status: 0 fine, 1 the job failed, 2 bad input. "
    "--debug anywhere shows the traceback of an error. Data sets are looked for in $NETFIT_DATA first."
)
_FIT, _HARDWARE, _METHODS, _AROUND = (
    Group(title, sort_key=place)
    for place, title in enumerate(("Fit a network", "Hardware", "Methods and applications", "Around it"))
)


def _help(path: str, text: str) -> str:
    """Paragraphs without their line breaks, and the example of the command."""
    paragraphs = [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]
    paragraphs += [f"Example: netfit {line}" for line in EXAMPLES if line == path or line.startswith(f"{path} ")][:1]
    return "\n\n".join(paragraphs)


def _command(parent: App, name: str, place: str, help: str, group: Group | None = None) -> None:
    path = name if parent is app else f"{parent.name[0]} {name}"
    parent.command(f"netfit.cli.{place}", name=name, help=_help(path, help), group=group)


def _room(name: str, help: str, group: Group) -> App:
    room = App(name=name, help=help, help_format="plaintext", group=group)
    app.command(room)
    return room


app = App(
    name="netfit",
    help="Fit neural networks to the hardware they run on.",
    help_epilogue=_EPILOGUE,
    help_format="plaintext",  # square brackets in a docstring are not markup
    version=__version__,
    suppress_keyboard_interrupt=False,  # a job says how to go on
)
app["--help"].group = app["--version"].group = Group("Flags", show=False)  # the text below the commands says it

_systolic = _room("systolic", "Systolic arrays that are not built yet.", _HARDWARE)
_gpu = _room("gpu", "Predict kernels on GPUs that are not here.", _HARDWARE)
_vta = _room("vta", "Programs of the VTA accelerator.", _HARDWARE)
_structure = _room(
    "structure",
    _help("structure", """Structured layers where they are faster on this machine, dense ones elsewhere.

    Tries butterfly, Monarch, pixelated butterfly and low-rank forms at every linear layer and convolution of MODEL:
    values, error of the projected weight beside that of a low-rank matrix of the same size, and time against dense.
    With --run, leaves policy.toml, the numbers and a report; netfit apply MODEL policy.toml makes the network.
    """),
    _METHODS,
)  # fmt: skip
_memory = _room("memory", "Training in less memory: who keeps it, and plans that fit.", _METHODS)
_pipeline = _room("pipeline", "Pipeline-parallel training: which schedule, on which links.", _METHODS)
_analog = _room("analog", "Noisy and analog hardware: what a network bears.", _METHODS)
_bayes = _room("bayes", "Classifiers that know when they are wrong.", _METHODS)
_detect = _room("detect", "Anomalies in clusters whose channels come and go.", _METHODS)
_speech = _room("speech", "Several microphones in, one clean voice out.", _METHODS)
_data = _room("data", "Data sets: which there are, and fetch one.", _AROUND)

_command(app, "compress", "_compress:compress", """Compress a network until it meets a measured latency.

    Trains it first when it comes without weights, searches what to prune and at which precision to run each layer
    against the latency measured on the target, retrains, and leaves policy, deployable network, numbers and a report
    in the run directory. An interrupted job goes on with the same command and --run.
    """, _FIT)  # fmt: skip
_command(app, "tradeoff", "_tradeoff:tradeoff", """What pays here: every family of methods on one network.

    Quantization down to one bit, pruning, structured layers and searched mixed policies, all retrained alike, each with
    accuracy, measured latency, memory, file size and its cost on further targets. Leaves a job directory for each
    point, the numbers, and a report with Pareto fronts and findings. An interrupted study goes on with the same command
    and --run.
    """, _FIT)  # fmt: skip
_command(app, "cost", "_cost:cost", """What a network costs, operator by operator.

    --target workload counts multiply-accumulates, parameters and bytes; any other target says how long each operator
    takes there. With --policy, of the network as the policy changes it.
    """, _FIT)  # fmt: skip
_command(app, "apply", "_apply:apply", """Change a network by a policy file and save it.

    model.onnx is saved beside the weights where the network can be exported. With --data, BatchNorm statistics are
    refreshed after pruning, and quantized activations get their ranges, from 768 training samples.
    """, _FIT)  # fmt: skip
_command(app, "report", "_report:report", "Write the HTML page of a finished run.", _AROUND)
_command(app, "models", "_models:models", "Built-in networks and the inputs they are made for.", _AROUND)
_command(_data, "list", "_data:names", "Names of all data sets.")
_command(_data, "fetch", "_data:fetch", "Find or download a data set and say what it holds.")
_command(_data, "make", "_bayes_evaluate:make", """Make a data set that cannot be downloaded: ambiguous-digits.

    An auto-encoder mixes digits of MNIST, an ensemble labels the mixtures; about ten minutes of one core.
    """)  # fmt: skip
_command(app, "roofline", "_roofline:roofline", """Measure what one core can do, and how near layers come.

    Reads of every cache level and arithmetic of every precision are measured once and kept. With MODEL, its
    convolutions and linear layers are timed in our kernels, in torch and as a plain loop nest, and the bound that holds
    each is named. The run directory gets the numbers and a report with the roofs.
    """, _HARDWARE)  # fmt: skip
_command(_systolic, "sweep", "_systolic:sweep", """Count every systolic array of a grid on several networks.

    Leaves all counters (sweep.db), the arrays that no other one beats, the array of least regret for all networks and
    a report in the run directory. netfit cost --target systolic:128x128 counts one array, operator by operator.
    """)  # fmt: skip
_command(_gpu, "import", "_gpu:import_", """Add measured kernels to a database.

    Sources are traces of torch.profiler, CUDA Flux counts, Kernel Tuner caches, CSV files, or names of systems whose
    tables the package aiconfigurator-core holds. netfit ships no measured table.
    """)  # fmt: skip
_command(_gpu, "train", "_gpu:train", "Train a predictor of time, power or energy and save it as ONNX and JSON.")
_command(_gpu, "evaluate", "_gpu:evaluate", """Train and test under protocols that leave kernels, devices or shapes out.

    A random split is only shown beside an honest one, and marked where it leaks.
    """)  # fmt: skip
_command(_gpu, "predict", "_gpu:predict", "Predict one matrix product, or one kernel from its PTX.")
_command(_gpu, "adapt", "_gpu:adapt", "Correct a predictor for a device with a few measured kernels.")
_command(_memory, "inspect", "_memory:inspect", "Every tensor autograd saves, by operation, shared ones once.")
_command(_memory, "measure", "_memory:measure", "Peak memory and time of a training step, in a process of its own.")
_command(_memory, "plan", "_memory:plan", """Plan how to keep activations so that a training step fits a budget.

    What is exact comes first; then 8, 4 or 2 bits where the measured gradient error is least. The plan is measured
    until it holds, or the floor is itemised. Leaves a policy file, the numbers and a report in the run directory.
    """)  # fmt: skip
_command(_memory, "max-batch", "_memory:max_batch", "The largest batch whose training step fits a memory.")
_command(_pipeline, "compare", "_pipeline:compare", """Formula, table and simulation of schedules side by side.

    --times gives equal stages, --model cuts a network for every schedule. With --run, result.json and a report with
    timelines, memory curves and the bandwidths at which the fastest schedule changes.
    """)  # fmt: skip
_command(_pipeline, "optimize", "_pipeline:optimize", "The fastest schedule under a memory limit, with proof or bound.")
_command(_pipeline, "simulate", "_pipeline:simulate", "One schedule on one network; --trace writes it for Perfetto.")
_command(_pipeline, "replay", "_pipeline:replay", "Run a schedule on torch processes and compare with the simulation.")
_command(_pipeline, "export", "_pipeline:export", "Write a schedule as a table that torch runs.")
_command(_analog, "sites", "_analog:sites", "Places of a network where noise can sit.")
_command(_analog, "walk", "_analog:walk", """Find how much noise each site of a network bears.

    Bisects the strength at which accuracy is half way to chance, site by site and everywhere at once; --retrain also
    trains under the noise. A factory or a built-in name is trained first, once a seed; a saved network is taken as it
    is. An interrupted walk goes on with the same command and --run.
    """)  # fmt: skip
_command(_analog, "harden", "_analog:harden", """Train a network for noisy hardware.

    Trains clean networks and networks at every constant level of noise too, so that the gain of a method is not
    mistaken for that of weaker noise. Leaves the network, the curves and a report in the run directory.
    """)  # fmt: skip
_command(_analog, "env", "_analog:env", "Judge a trained network while the noise of its hardware fluctuates.")
_command(_analog, "order", "_analog_hardware:order", """Score a network on an array whose sums saturate.

    Compares the order in which rows stand with random ones and with the balanced order, which keeps partial sums small;
    orders.json holds the latter. A factory or a built-in name is trained first, a saved network is taken as it is.
    """)  # fmt: skip
_command(_analog, "program", "_analog_hardware:program", """Program a network onto chips of resistive memory.

    Scores it as the chips age, with and without drift compensated. A factory or a built-in name is trained first, a
    saved network is taken as it is. An interrupted training goes on with the same command and --run.
    """)  # fmt: skip
_command(_bayes, "fit", "_bayes:fit", """Train a network whose weights are Gaussian.

    A new network is trained plainly first; a saved one is taken as it is. Leaves the network and its curves in the run
    directory. A killed training goes on with the same command and --run.
    """)  # fmt: skip
_command(_bayes, "convert", "_bayes:convert", "Turn a posterior trained with Pyro into a saved Bayesian network.")
_command(_bayes, "calibrate", "_bayes:calibrate", """Compare one probabilistic pass with sampling, layer by layer.

    Chooses the rule of every maximum and the correlation of every average, and keeps them with the network.
    """)  # fmt: skip
_command(_bayes, "pfp", "_bayes:pfp", "One probabilistic pass: time its backends, write it as ONNX.")
_command(_bayes, "quantize", "_bayes:quantize", "Round a Bayesian network to a few bits, train it on, and pack it.")
_command(_bayes, "evaluate", "_bayes_evaluate:evaluate", """Score predictions and uncertainties of a Bayesian network.

    Accuracy, calibration, risk against coverage, how well ambiguous and foreign images are found, and the images it is
    least sure of, as numbers and as a report.
    """)  # fmt: skip
_command(_bayes, "tan", "_bayes_tan:tan", """Learn a classifier of a table that only adds integers, and write it as C.

    --front sweeps sizes and widths, trains quantized networks on the same table, and draws the Pareto front of bytes
    and error.
    """)  # fmt: skip
_command(_structure, "bench", "_structure:bench", """Measure structured layers of many sizes against nn.Linear.

    Shows from which size on a butterfly, Monarch, pixelated butterfly and low-rank layer is faster on this machine.
    """)  # fmt: skip
_structure.default(structure)
_command(_speech, "enhance", "_speech:enhance", """Separate one voice from everything else in a recording.

    A small mask network says where the voice is, and a beamformer made from it takes out the rest. Dead and clipped
    microphones are named and left out. --stream works in constant memory on files of any length.
    """)  # fmt: skip
_command(_speech, "simulate", "_speech:simulate", """Simulate rooms, voices and noises, and keep all parts.

    Voices are folders of recordings (wav, flac, ogg, g722), or wake-words. scripts/fetch_speech.sh fetches free ones.
    """)  # fmt: skip
_command(_speech, "train", "_speech:train", """Train a mask network of 1 to 32 bits on simulated scenes.

    First in full precision, then on at the precision asked for. An interrupted training goes on with the same command
    and --run.
    """)  # fmt: skip
_command(_speech, "eval", "_speech:evaluate", """Compare mask networks with the noisy microphone and the ideal mask.

    SI-SDR always; PESQ, STOI and word errors where the packages of the extra speech-eval are installed.
    """)  # fmt: skip
_command(_detect, "fit", "_detect:fit", """Fit a detector to a table of channels over time.

    Peers are compared from the first row, so fitting only sets scales, thresholds and, with --temporal tranad or
    informer, trains a forecaster. CSV or Parquet, wide (time and one column a channel) or long (time, channel, value).
    """)  # fmt: skip
_command(_detect, "run", "_detect:run", """Run a detector on a table or a growing file, and tell what is wrong.

    Alerts go to --alerts as JSON lines, once when they begin and once when they are over. With --state a run that was
    stopped or killed goes on with the same command, and no alert is told twice. --run leaves a page with a card for
    each alert.
    """)  # fmt: skip
_command(_detect, "prometheus", "_detect:prometheus", """Run a detector on a Prometheus server.

    Asks the HTTP interface for rows as they come. --listen serves the detector's own numbers at /metrics.
    """)  # fmt: skip
_command(_detect, "record", "_detect_data:record", """Record real processes of this machine, some of which fail.

    Makes labelled data of a cluster that changes: processes in groups that leak, spin, hang or die, leave and join.
    """)  # fmt: skip
_command(_detect, "inject", "_detect_data:inject", "Put the seven kinds of anomalies of the paper into a table.")
_command(_detect, "eval", "_detect:evaluate", "Judge scores by labels, beside random scores.")
_command(_detect, "cost", "_detect:cost", "What one row costs, stage by stage.")
_command(app, "tune", "_tune:tune", """Find a fast valid kernel of an operator in few measurements.

    Kernels are generated as C and each is tried in a process of its own: here, in an emulator, or on a board where
    netfit serve runs; on a VTA they are simulated. Every attempt is a record, also those that are invalid. A killed
    search goes on with the same command and --run, and measures nothing twice.
    """, _HARDWARE)  # fmt: skip
_command(app, "serve", "_tune:serve", "Take kernels over the network: the board's side of tune.", _HARDWARE)
_command(app, "embed", "_embed:embed", """Bring a convolution onto a core with one matrix instruction.

    Constraint programming proves the fewest instructions; layouts of all operands and a program follow from the
    solution.
    """, _HARDWARE)  # fmt: skip
_command(_vta, "run", "_embed:vta_run", "Check, run and count a program of the VTA.")
_command(app, "env", "_env:env", "The machine and the versions that numbers depend on.", _AROUND)

"""One command line of every command, shown by its ``--help``; a test holds that each parses and runs the cheap ones."""

__all__ = ["EXAMPLES"]

# Files of one folder: each line finds what the lines before it left.
_LINES = """
models
env
data list
data fetch digits
data make ambiguous-digits --seed 0
cost resnet20 --target systolic:32x32
apply resnet20 policy.toml --out small
compress resnet20 --data cifar10 --target host --latency 0.25 --run runs/a
tradeoff digits-cnn --data digits --run runs/tradeoff
roofline resnet18 --in-shape 3,224,224 --run runs/roofline
systolic sweep lenet5 resnet20 --rows 8:64:8 --cols 8:64:8 --run runs/arrays
report runs/arrays
gpu import mm.csv --format csv --map m=M,n=N,k=K,time_us=us,device=gpu --set app=mm,kernel=mm,kind=gemm,dtype=bf16 \
--into kernels.db
gpu train kernels.db time --trees 64
gpu evaluate kernels.db --trees 64 --run runs/gpu
gpu predict time --device h100 --m 512 --n 4096 --k 4096
gpu adapt time kernels.db time-a100 --only a100_sxm --probes 30
memory inspect digits-cnn --data digits
memory measure digits-cnn --data digits --policy q4
memory plan resnet20 --data cifar10 --budget 0.6 --run runs/memory
memory max-batch digits-cnn --data digits --budget 64MB --policy auto
pipeline compare --devices 4 --microbatches 4,8 --schedules gpipe,1f1b --run runs/pipeline
pipeline optimize --devices 2 --microbatches 3 --seconds 10
pipeline simulate 1f1b --devices 4 --microbatches 8 --trace 1f1b.json
pipeline replay 1f1b --devices 2 --microbatches 4
pipeline export 1f1b --devices 4 --microbatches 8 --torch-csv 1f1b.csv
analog sites lenet5
analog walk lenet5 --data fashion-mnist --noise multiplicative --run runs/walk
analog harden lenet5 --data fashion-mnist --std 1.0 --method vant --run runs/harden
analog env runs/harden/model --data fashion-mnist --spread 0.3 --run runs/env
analog order runs/harden/model --data fashion-mnist --overdrive 2 --run runs/order
analog program runs/harden/model --data fashion-mnist --device wan2022 --adc-bits 6 --run runs/program
bayes fit lenet5 --data dirty-mnist --epochs 10 --run runs/bayes
bayes convert guide.pt --model lenet5 --out lenet
bayes calibrate runs/bayes/model --data mnist
bayes pfp runs/bayes/model --batch 1 --out lenet.onnx
bayes quantize runs/bayes/model --data dirty-mnist --bits 4
bayes evaluate runs/bayes/model --in mnist --ood fashion-mnist
bayes tan table.csv --label kind --bits 2 --run runs/tan
structure mlp --batch 64 --run runs/structure
structure bench --sizes 64..4096
speech enhance noisy.wav clean.wav
speech simulate --speech wake-words --noise babble,pink --scenes 300 --out scenes
speech train scenes --bits w1a8 --run runs/speech
speech eval scenes runs/speech/model
detect fit steady.csv --group-by rack --out model
detect inject steady.csv stream.csv labels.csv --group-by rack
detect run model stream.csv --alerts alerts.jsonl
detect prometheus model --url http://localhost:9090 --query 'rate(node_cpu_seconds_total[1m])' --step 15s
detect record fleet.parquet --nodes 24 --seconds 300 --faults leak,busy,hang,kill
detect eval scores.csv labels.csv
detect cost model --channels 1e5
tune gemm:960x960x960 --trials 60 --export kernel
serve --token-file token
embed 1x16x14x14,k=16,r=3,padding=1 --program conv.npz
vta run conv.npz
"""

EXAMPLES = tuple(_LINES.strip().splitlines())

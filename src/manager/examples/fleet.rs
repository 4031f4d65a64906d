//! How much it takes to follow many hosts: a thousand simulated ones, polled by [`Fleet`] without TLS.
//!
//! ```text
//! cargo run --release -p whydown-manager --example fleet [-- HOSTS VMS SECONDS EVERY]
//! ```
//!
//! 1000 hosts of 50 VMs, 20 seconds, every 3 seconds, if not said. The hosts are a process of their own that answers
//! with prepared bytes, each at an address of its own in 127.1.0.0/16; nothing leaves the machine. Printed are polls a
//! second, processor time a poll and memory of the manager alone, and how long after a VM's end it is told. It measures
//! the manager, and says nothing about hosts.

use std::io::Write as _;
use std::net::Ipv4Addr;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use whydown_manager::{Fleet, Memory, News, Rhythm, Target};

type Problem = Box<dyn std::error::Error + Send + Sync>;

/// Endings that are timed.
const ENDINGS: usize = 20;

#[tokio::main]
async fn main() -> Result<(), Problem> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number =
        |place: usize, usual: f64| arguments.get(place).map_or(Ok(usual), |text| text.parse::<f64>());
    raise_the_limit_of_open_files()?;
    if arguments.first().is_some_and(|word| word == "serve") {
        return serve(number(1, 0.0)? as usize, number(2, 0.0)? as usize).await;
    }
    let (hosts, vms) = (number(0, 1000.0)? as usize, number(1, 50.0)? as usize);
    let (seconds, every) =
        (Duration::from_secs_f64(number(2, 20.0)?), Duration::from_secs_f64(number(3, 3.0)?));
    measure(hosts.clamp(1, 60_000), vms.clamp(1, 5000), seconds, every).await
}

async fn measure(hosts: usize, vms: usize, seconds: Duration, every: Duration) -> Result<(), Problem> {
    let mut simulated = Simulated::start(hosts, vms).await?;
    let targets: Vec<Target> = (0..hosts)
        .map(|host| Target { url: format!("http://{}:{}/", address(host), simulated.port), tls: None })
        .collect();
    let before = resident_kib()?;
    let mut fleet = Fleet::start(&targets, Rhythm { every, ..Rhythm::default() }, Memory::default())?;
    let begun = Instant::now();
    let (mut answering, mut seen) = (0, 0);
    while answering < hosts || seen < hosts * vms {
        match fleet.next().await {
            Some((_, News::Answers { .. })) => answering += 1,
            Some((_, News::Status { .. })) => seen += 1,
            Some((host, odd)) => return Err(format!("host {host}: {odd:?}").into()),
            None => return Err("the fleet has ended".into()),
        }
    }
    let first_round = begun.elapsed();

    // Steady: nothing changes, all is polled.
    let (polls, cpu, start) = (simulated.polls().await?, cpu_ticks()?, Instant::now());
    if let Ok(odd) = tokio::time::timeout(seconds, fleet.next()).await {
        return Err(format!("nothing changes, and yet: {odd:?}").into());
    }
    let elapsed = start.elapsed().as_secs_f64();
    let (polls, cpu) = (simulated.polls().await? - polls, (cpu_ticks()? - cpu) as f64 / ticks_a_second());

    // All at once: the hosts are polled at different moments of the rhythm anyway.
    let endings = ENDINGS.min(hosts);
    let mut ended = std::collections::BTreeMap::new();
    for ending in 0..endings {
        let host = ending * hosts / endings;
        ended.insert(host, Instant::now());
        simulated.say(&format!("end {host}")).await?;
    }
    let mut noticed = Vec::new();
    while noticed.len() < endings {
        match tokio::time::timeout(Duration::from_secs(120), fleet.next()).await? {
            Some((host, News::Ended { .. })) => {
                let ended = ended.remove(&host).ok_or("told twice")?;
                noticed.push(ended.elapsed().as_secs_f64());
            }
            odd => return Err(format!("{odd:?}").into()),
        }
    }
    noticed.sort_by(f64::total_cmp);

    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{hosts} hosts with {vms} VMs each, {} bytes a reply, polled {every:?} after the last time",
        simulated.bytes
    )?;
    writeln!(out, "first round             {:>10.2} s", first_round.as_secs_f64())?;
    writeln!(out, "polls                   {:>10.1} a second", polls as f64 / elapsed)?;
    writeln!(out, "VMs read                {:>10.0} a second", (polls as usize * vms) as f64 / elapsed)?;
    writeln!(
        out,
        "processor               {:>10.3} ms a poll, {:.1} % of one",
        cpu * 1000.0 / polls as f64,
        cpu / elapsed * 100.0
    )?;
    let (after, peak) = (resident_kib()?, peak_kib()?);
    writeln!(
        out,
        "memory                  {:>10.1} MiB, {:.1} before, {:.1} at most",
        mib(after),
        mib(before),
        mib(peak)
    )?;
    writeln!(
        out,
        "an ending is told after {:>10.2} s in the middle, {:.2} s at most",
        noticed[endings / 2],
        noticed[endings - 1]
    )?;
    Ok(())
}

fn address(host: usize) -> Ipv4Addr {
    let [high, low] = u16::try_from(host + 1).unwrap_or(u16::MAX).to_be_bytes();
    Ipv4Addr::new(127, 1, high, low)
}

/// The process of the hosts, from outside. It ends when its input does.
struct Simulated {
    _child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    port: u16,
    bytes: usize,
}

impl Simulated {
    async fn start(hosts: usize, vms: usize) -> Result<Self, Problem> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["serve", &hosts.to_string(), &vms.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let input = child.stdin.take().ok_or("no pipe")?;
        let output = BufReader::new(child.stdout.take().ok_or("no pipe")?).lines();
        let mut simulated = Self { _child: child, input, output, port: 0, bytes: 0 };
        let told = simulated.line().await?;
        let (port, bytes) = told.split_once(' ').ok_or("no port")?;
        (simulated.port, simulated.bytes) = (port.parse()?, bytes.parse()?);
        Ok(simulated)
    }

    async fn line(&mut self) -> Result<String, Problem> {
        Ok(self.output.next_line().await?.ok_or("the hosts have ended")?)
    }

    async fn say(&mut self, word: &str) -> Result<String, Problem> {
        self.input.write_all(format!("{word}\n").as_bytes()).await?;
        self.line().await
    }

    async fn polls(&mut self) -> Result<u64, Problem> {
        Ok(self.say("polls").await?.parse()?)
    }
}

/// What a host answers, and how often anybody asked.
struct Canned {
    answer: RwLock<Arc<[u8]>>,
}

async fn serve(hosts: usize, vms: usize) -> Result<(), Problem> {
    let polls = Arc::new(AtomicU64::new(0));
    let up: Arc<[u8]> = answer(vms, false).into();
    let down: Arc<[u8]> = answer(vms, true).into();
    let mut all = Vec::new();
    // The first address takes any port, the others the same one.
    let mut port = 0;
    for host in 0..hosts {
        let listener = TcpListener::bind((address(host), port)).await?;
        port = listener.local_addr()?.port();
        let canned = Arc::new(Canned { answer: RwLock::new(Arc::clone(&up)) });
        all.push(Arc::clone(&canned));
        let polls = Arc::clone(&polls);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(connection(stream, Arc::clone(&canned), Arc::clone(&polls)));
            }
        });
    }
    say(&format!("{port} {}", up.len()))?;
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        match line.split_once(' ') {
            Some(("end", host)) => {
                *all[host.parse::<usize>()?].answer.write().expect("nobody panics") = Arc::clone(&down);
                say("ended")?;
            }
            _ => say(&polls.load(Ordering::Relaxed).to_string())?,
        }
    }
    Ok(())
}

fn say(line: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

async fn connection(stream: TcpStream, canned: Arc<Canned>, polls: Arc<AtomicU64>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    let mut body = Vec::new();
    loop {
        let mut length = 0;
        let mut line = String::new();
        loop {
            line.clear();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            match line.trim_end().split_once(':') {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    length = value.trim().parse().unwrap_or(0);
                }
                None if line.trim_end().is_empty() => break,
                _ => {}
            }
        }
        body.resize(length, 0);
        stream.read_exact(&mut body).await?;
        polls.fetch_add(1, Ordering::Relaxed);
        let answer = Arc::clone(&canned.answer.read().expect("nobody panics"));
        stream.get_mut().write_all(&answer).await?;
    }
}

/// A whole HTTP answer of `getAllVmStats`: VMs as they are told to engine 3.5, the first of them Down or not.
fn answer(vms: usize, ended: bool) -> Vec<u8> {
    let member =
        |name: &str, value: &str| format!("<member><name>{name}</name><value>{value}</value></member>");
    let text = |name: &str, value: &str| member(name, &format!("<string>{value}</string>"));
    let structure = |members: &str| format!("<struct>{members}</struct>");
    let nic: String = [
        ("name", "vnet0"),
        ("macAddr", "52:54:00:00:00:01"),
        ("speed", "1000"),
        ("state", "unknown"),
        ("rxRate", "0.1"),
        ("txRate", "0.2"),
        ("rxErrors", "0"),
        ("rxDropped", "0"),
        ("txErrors", "0"),
        ("txDropped", "0"),
    ]
    .map(|(name, value)| text(name, value))
    .concat();
    let disk: String = [
        ("truesize", "1073741824"),
        ("apparentsize", "10737418240"),
        ("readRate", "5120.00"),
        ("writeRate", "0.00"),
        ("readLatency", "123440"),
        ("writeLatency", "0"),
        ("flushLatency", "9"),
    ]
    .map(|(name, value)| text(name, value))
    .concat();
    let running: String = [
        ("status", "Up"),
        ("pid", "4242"),
        ("vmType", "kvm"),
        ("elapsedTime", "3600"),
        ("monitorResponse", "0"),
        ("kvmEnable", "true"),
        ("acpiEnable", "true"),
        ("displayType", "qxl"),
        ("displayPort", "5900"),
        ("displaySecurePort", "-1"),
        ("displayIp", "0"),
        ("hash", "-4942054084956770103"),
        ("statsAge", "1.50"),
        ("cpuUser", "61.26"),
        ("cpuSys", "7.00"),
        ("username", "Unknown"),
        ("session", "Unknown"),
        ("memUsage", "0"),
        ("guestIPs", ""),
        ("guestFQDN", ""),
        ("vcpuCount", "2"),
    ]
    .map(|(name, value)| text(name, value))
    .concat()
        + &member("network", &structure(&member("vnet0", &structure(&nic))))
        + &member("disks", &structure(&member("vda", &structure(&disk))));
    let down = text("status", "Down")
        + &member("exitCode", "<int>1</int>")
        + &text("exitMessage", "Lost connection with qemu process")
        + &member("exitReason", "<int>2</int>")
        + &text("exitRunId", "7");
    let entries: String = (0..vms)
        .map(|number| {
            let id = text("vmId", &format!("6695eb01-f6a4-4304-89aa-{number:012x}"));
            let rest = if ended && number == 0 { &down } else { &running };
            format!("<value>{}</value>", structure(&(id + rest)))
        })
        .collect();
    let status = member("status", &structure(&(member("code", "<int>0</int>") + &text("message", "Done"))));
    let list = member("statsList", &format!("<array><data>{entries}</data></array>"));
    let body = format!(
        "<?xml version='1.0'?><methodResponse><params><param><value>{}</value></param></params></methodResponse>",
        structure(&(status + &list))
    );
    format!("HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        .into_bytes()
}

/// Two for each host on either side.
fn raise_the_limit_of_open_files() -> Result<(), Problem> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?)
}

fn cpu_ticks() -> Result<u64, Problem> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The name in parentheses may hold anything; times are the 12th and 13th behind it.
    let behind = stat.rsplit_once(')').ok_or("no name")?.1;
    let fields: Vec<&str> = behind.split_ascii_whitespace().collect();
    Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
}

fn ticks_a_second() -> f64 {
    rustix::param::clock_ticks_per_second() as f64
}

fn resident_kib() -> Result<u64, Problem> {
    of_status("VmRSS:")
}

fn peak_kib() -> Result<u64, Problem> {
    of_status("VmHWM:")
}

fn of_status(name: &str) -> Result<u64, Problem> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)).ok_or("no such line")?;
    Ok(line.split_ascii_whitespace().next().ok_or("no number")?.parse()?)
}

fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

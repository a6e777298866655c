//! The machine of a virtual Pi: qemu, started over and over as a Pi's firmware would.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::clock::TimeSource;
use crate::firmware::{BootMode, BootPartition};
use crate::image::Image;
use crate::network::Seat;
use crate::process;
use crate::qmp::{self, Commands, Events};
use crate::recording::Recording;
use crate::root_channel::RootChannel;

/// What executes the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Accelerator {
    Kvm,
    /// Software emulation.
    Tcg,
}

impl Accelerator {
    /// What is worth a try here. `/dev/kvm` alone proves nothing: only the two real modules do (lab.md §1).
    pub(crate) fn candidate() -> Self {
        let module = ["kvm_intel", "kvm_amd"]
            .iter()
            .any(|name| PathBuf::from("/sys/module").join(name).exists());
        let usable = || {
            File::options()
                .read(true)
                .write(true)
                .open("/dev/kvm")
                .is_ok()
        };
        if module && usable() {
            Self::Kvm
        } else {
            Self::Tcg
        }
    }

    fn arguments(self) -> [&'static str; 4] {
        match self {
            Self::Kvm => ["-accel", "kvm", "-cpu", "host"],
            // The plainest CPU is the quickest to emulate: no wide registers, and none of Intel's old holes to work around.
            Self::Tcg => ["-accel", "tcg,thread=multi,tb-size=256", "-cpu", "qemu64"],
        }
    }
}

/// How a machine is put together. Its folder holds root.qcow2 and boot.vfat.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) name: String,
    pub(crate) folder: PathBuf,
    pub(crate) image: Image,
    pub(crate) repository: Option<PathBuf>,
    pub(crate) accelerator: Accelerator,
    pub(crate) memory_mib: u32,
    pub(crate) ssh_port: u16,
    pub(crate) lan_port: u16,
    pub(crate) seat: Seat,
    /// Whether the time source answers.
    pub(crate) serves_time: Arc<AtomicBool>,
}

/// What the next power-on starts from.
#[derive(Debug, Clone, Default)]
pub(crate) struct Start {
    /// A RAM snapshot to go on from, instead of booting.
    pub(crate) snapshot: Option<PathBuf>,
    /// What the hardware clock says, in seconds since 1970; the true time unless given.
    pub(crate) clock: Option<u64>,
    /// Whether the writes to the boot partition are recorded, until qemu ends.
    pub(crate) records: bool,
}

/// A machine, on or off. Dropping it pulls the plug.
#[derive(Debug)]
pub(crate) struct Machine {
    setup: Arc<Setup>,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Whether the thread that plays the firmware runs.
    on: bool,
    cut: bool,
    /// How often qemu was started, and how often that led to nothing.
    starts: u32,
    aborts: u32,
    watchdog_resets: u32,
    running: Option<Running>,
    failure: Option<String>,
}

#[derive(Debug, Clone)]
struct Running {
    process: u32,
    commands: Commands,
    channel: Arc<Mutex<RootChannel>>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state());
        self.changed.notify_all();
        result
    }

    fn wait<T>(
        &self,
        limit: Duration,
        what: &str,
        mut check: impl FnMut(&mut State) -> Option<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + limit;
        let mut state = self.state();
        loop {
            if let Some(result) = check(&mut state) {
                return Ok(result);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            ensure!(
                !left.is_zero(),
                "{what} took longer than {} s",
                limit.as_secs()
            );
            state = self
                .changed
                .wait_timeout(state, left)
                .map_or_else(|error| error.into_inner().0, |(state, _)| state);
        }
    }
}

impl Machine {
    pub(crate) fn new(setup: Setup) -> Self {
        Self {
            setup: Arc::new(setup),
            shared: Arc::default(),
            thread: Mutex::default(),
        }
    }

    pub(crate) fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Switches it on and returns when qemu runs.
    pub(crate) fn power_on(&self, start: Start) -> Result<()> {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_on() {
            return Ok(());
        }
        if let Some(ended) = thread.take() {
            let _ = ended.join();
        }
        self.shared
            .change(|state| (state.on, state.cut, state.failure) = (true, false, None));
        let (setup, shared) = (Arc::clone(&self.setup), Arc::clone(&self.shared));
        let firmware = move || {
            let end = play_firmware(&setup, &shared, start);
            shared.change(|state| {
                (state.on, state.running) = (false, None);
                state.failure = end.err().map(|error| format!("{error:#}"));
            });
        };
        *thread = Some(
            thread::Builder::new()
                .name(format!("pi {}", self.setup.name))
                .spawn(firmware)?,
        );
        drop(thread);
        self.shared
            .wait(Duration::from_secs(30), "starting qemu", |state| {
                (state.running.is_some() || !state.on).then_some(())
            })?;
        match &self.shared.state().failure {
            Some(failure) => bail!("{}: {failure}", self.setup.name),
            None => Ok(()),
        }
    }

    /// Pulls the plug.
    pub(crate) fn power_cut(&self) -> Result<()> {
        let process = self.shared.change(|state| {
            state.cut = true;
            state.running.as_ref().map(|running| running.process)
        });
        if let Some(process) = process {
            // The firmware thread has not reaped it while `running` is set, so the number is still qemu's.
            process::output(Command::new("kill").args(["-KILL", &process.to_string()]))?;
        }
        self.wait_until_off(Duration::from_secs(30))
    }

    pub(crate) fn is_on(&self) -> bool {
        self.shared.state().on
    }

    /// How often it booted, and how often the watchdog was the reason.
    pub(crate) fn counts(&self) -> (u32, u32) {
        let state = self.shared.state();
        (state.starts - state.aborts, state.watchdog_resets)
    }

    /// How often qemu was started; more than [`Machine::counts`] says where it aborted.
    pub(crate) fn starts(&self) -> u32 {
        self.shared.state().starts
    }

    /// Whether qemu is started once more than it was, within the limit.
    pub(crate) fn starts_again(&self, seen: u32, limit: Duration) -> bool {
        let again = |state: &mut State| (state.starts > seen).then_some(());
        self.shared.wait(limit, "another start", again).is_ok()
    }

    pub(crate) fn wait_until_off(&self, limit: Duration) -> Result<()> {
        self.shared.wait(
            limit,
            &format!("{}: switching off", self.setup.name),
            |state| (!state.on).then_some(()),
        )
    }

    pub(crate) fn wait_for_watchdog(&self, seen: u32, limit: Duration) -> Result<()> {
        self.shared.wait(
            limit,
            &format!("{}: a watchdog reset", self.setup.name),
            |state| (state.watchdog_resets > seen).then_some(()),
        )
    }

    fn running(&self) -> Result<Running> {
        // Between a guest's reset and its next boot nothing runs for a moment.
        let running = self
            .shared
            .wait(Duration::from_secs(30), "the next boot", |state| {
                if state.on {
                    state.running.clone().map(Some)
                } else {
                    Some(None)
                }
            })?;
        running.with_context(|| format!("{} is off", self.setup.name))
    }

    pub(crate) fn qmp(
        &self,
        command: &str,
        arguments: &serde_json::Value,
    ) -> Result<serde_json::Value> {
        self.running()?.commands.execute(command, arguments)
    }

    /// Runs a script as root over the private channel.
    pub(crate) fn root(&self, script: &str, limit: Duration) -> Result<String> {
        let channel = self.running()?.channel;
        let mut channel = channel.lock().unwrap_or_else(PoisonError::into_inner);
        channel
            .run(script, limit)
            .with_context(|| self.setup.name.clone())
    }

    /// The same without waiting for its end, which may never come.
    pub(crate) fn root_send(&self, script: &str) -> Result<()> {
        let channel = self.running()?.channel;
        let mut channel = channel.lock().unwrap_or_else(PoisonError::into_inner);
        channel.send(script)
    }

    /// Stops the guest and writes its RAM into a file.
    pub(crate) fn save(&self, file: &std::path::Path) -> Result<()> {
        let commands = self.running()?.commands;
        commands.simple("stop")?;
        commands.execute(
            "migrate-set-parameters",
            &json!({ "max-bandwidth": 1_u64 << 34 }),
        )?;
        commands.execute(
            "migrate",
            &json!({ "uri": format!("exec:cat > '{}'", file.display()) }),
        )?;
        poll(Duration::from_secs(120), "saving the RAM", || {
            let status = commands.simple("query-migrate")?;
            match status["status"].as_str() {
                Some("completed") => Ok(Some(())),
                Some("failed" | "cancelled") => bail!("saving the RAM failed: {status}"),
                _ => Ok(None),
            }
        })
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.power_cut();
        if let Some(thread) = self
            .thread
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        {
            let _ = thread.join();
        }
    }
}

/// Asks again and again, a hundred times a second, until there is an answer.
pub(crate) fn poll<T>(
    limit: Duration,
    what: &str,
    mut ask: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        ensure!(
            Instant::now() < deadline,
            "{what} took longer than {} s",
            limit.as_secs()
        );
        thread::sleep(Duration::from_millis(10));
    }
}

const SIGABRT: i32 = 6;
/// qemu 10.0's software emulation with several CPUs now and then fails its own assertion (`iotlb_to_section`) when a
/// kernel sets up its devices; seen once in some forty boots. Nothing of the Pi has run by then.
const EARLY: Duration = Duration::from_secs(60);

/// Boots until the guest switches itself off or the plug is pulled.
fn play_firmware(setup: &Setup, shared: &Shared, mut start: Start) -> Result<()> {
    let partition = BootPartition::new(&setup.folder.join("boot.vfat"));
    let mut aborts = 0;
    // A register of the firmware: one boot long, and without power nothing.
    let mut mode = BootMode::Normal;
    loop {
        let began = Instant::now();
        let cmdline = partition.kernel_command_line(mode)?;
        if start.records {
            Recording::begin(partition.image())?;
        }
        let mut power_on = PowerOn::new(setup)?;
        // On a busy machine a guest's early ticks may all come late; its kernel then gives up on its clock chip and hangs.
        // What it does against its CPU's holes costs time, and an emulated CPU has none.
        let cmdline = format!("no_timer_check mitigations=off {cmdline}");
        let mut child = power_on.spawn(setup, &cmdline, mode, &start)?;
        let reason = power_on.run(setup, shared, &mut child, &start);
        // The number must not be used for a kill once the process is reaped.
        shared.change(|state| state.running = None);
        if reason.is_err() {
            let _ = child.kill();
        }
        let status = child.wait()?;
        let reason = reason?;
        if shared.state().cut || reason.as_deref() == Some("guest-shutdown") {
            return Ok(());
        }
        let log = fs::read(setup.folder.join("qemu.log")).unwrap_or_default();
        let log = process::last_lines(&log, 10);
        if status.signal() == Some(SIGABRT) && began.elapsed() < EARLY && aborts < 3 {
            process::say(&format!(
                "{}: qemu aborted while booting, once more: {log}",
                setup.name
            ));
            aborts += 1;
            shared.change(|state| state.aborts += 1);
            continue;
        }
        if !status.success() || reason.as_deref() != Some("guest-reset") {
            bail!("qemu ended ({status}, {reason:?}):\n{log}");
        }
        aborts = 0;
        mode = power_on.next_mode()?;
        start = Start {
            snapshot: None,
            records: false,
            ..start
        };
    }
}

/// One life of qemu: its sockets, which are there before it is.
struct PowerOn {
    qmp: UnixListener,
    channel: UnixListener,
    register: UnixListener,
    time: TimeSource,
}

impl PowerOn {
    fn new(setup: &Setup) -> Result<Self> {
        // Socket paths are limited to 108 bytes, a cache folder's is not: go through the open folder.
        let folder = File::open(&setup.folder)?;
        let at = |name: &str| {
            let _ = fs::remove_file(setup.folder.join(name));
            PathBuf::from(format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()))
        };
        let _ = at("time-guest.sock");
        let (qmp, channel, register) = (
            UnixListener::bind(at("qmp.sock"))?,
            UnixListener::bind(at("root.sock"))?,
            UnixListener::bind(at("firmware.sock"))?,
        );
        qmp.set_nonblocking(true)?;
        channel.set_nonblocking(true)?;
        register.set_nonblocking(true)?;
        let time = TimeSource::new(
            UnixDatagram::bind(at("time.sock"))?,
            &setup.folder,
            setup.seat,
            Arc::clone(&setup.serves_time),
        )?;
        Ok(Self {
            qmp,
            channel,
            register,
            time,
        })
    }

    fn spawn(
        &mut self,
        setup: &Setup,
        cmdline: &str,
        mode: BootMode,
        start: &Start,
    ) -> Result<Child> {
        let log = File::create(setup.folder.join("qemu.log"))?;
        // The kernel ends qemu when the thread that started it does, whatever that one died of.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "qemu-system-x86_64"])
            .args(setup.accelerator.arguments());
        command.args(arguments(setup, cmdline, mode, start));
        command
            .current_dir(&setup.folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        command.spawn().context(
            "cannot run setpriv and qemu-system-x86_64; tests/lab/install.sh installs them",
        )
    }

    /// How the guest, which has ended, wanted to be booted next: `tryboot` was the last thing that a Pi's kernel told the
    /// firmware, or nothing was.
    fn next_mode(&self) -> Result<BootMode> {
        let (mut stream, _) = self.register.accept()?;
        stream.set_nonblocking(false)?;
        let mut register = Vec::new();
        stream.read_to_end(&mut register)?;
        Ok(if register.ends_with(b"tryboot\n") {
            BootMode::Tryboot
        } else {
            BootMode::Normal
        })
    }

    /// Follows qemu to its end; returns the reason it gave for shutting down.
    fn run(
        &mut self,
        setup: &Setup,
        shared: &Shared,
        child: &mut Child,
        start: &Start,
    ) -> Result<Option<String>> {
        let Some(stream) = accept(&self.qmp, child)? else {
            return Ok(None);
        };
        let (commands, events) = qmp::open(stream)?;
        let Some(channel) = accept(&self.channel, child)? else {
            return Ok(None);
        };
        let running = Running {
            process: child.id(),
            commands: commands.clone(),
            channel: Arc::new(Mutex::new(RootChannel::new(channel))),
        };
        let resumes = start.snapshot.is_some();
        thread::scope(|scope| {
            let follower = scope.spawn(|| follow(events, shared));
            let started = commands
                .simple("qmp_capabilities")
                .and_then(|_| if resumes { resume(&commands) } else { Ok(()) });
            // A qemu that could not start tells why in its log; its end is noticed below.
            let cut = shared.change(|state| {
                if started.is_ok() {
                    state.starts += 1;
                    state.running = Some(running);
                }
                state.cut
            });
            if cut || started.is_err() {
                let _ = child.kill();
            }
            let reason = follower.join().unwrap_or_default();
            if let (Err(error), false) = (started, cut) {
                let _ = child.wait();
                let log = fs::read(setup.folder.join("qemu.log")).unwrap_or_default();
                return Err(error.context(process::last_lines(&log, 10)));
            }
            self.time.stop();
            Ok(reason)
        })
    }
}

fn accept(listener: &UnixListener, child: &mut Child) -> Result<Option<UnixStream>> {
    poll(
        Duration::from_secs(30),
        "starting qemu",
        || match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                Ok(Some(Some(stream)))
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                Ok(child.try_wait()?.map(|_| None))
            }
            Err(error) => Err(error.into()),
        },
    )
}

fn resume(commands: &Commands) -> Result<()> {
    poll(Duration::from_secs(60), "loading the RAM snapshot", || {
        let status = commands.simple("query-status")?;
        Ok((status["status"].as_str() != Some("inmigrate")).then_some(()))
    })?;
    commands.simple("cont").map(drop)
}

/// Hears all events to the end; the reason of the last shutdown is what counts.
fn follow(mut events: Events, shared: &Shared) -> Option<String> {
    let mut reason = None;
    while let Some((event, data)) = events.next() {
        match event.as_str() {
            "WATCHDOG" => shared.change(|state| state.watchdog_resets += 1),
            "SHUTDOWN" => reason = data["reason"].as_str().map(str::to_owned),
            _ => {}
        }
    }
    reason
}

fn arguments(setup: &Setup, cmdline: &str, mode: BootMode, start: &Start) -> Vec<String> {
    let mut arguments: Vec<String> = Vec::new();
    let mut add = |words: &[&str]| arguments.extend(words.iter().map(|&word| word.to_owned()));
    let path = |path: PathBuf| path.to_string_lossy().into_owned();
    let memory = setup.memory_mib.to_string();

    add(&[
        "-name",
        &setup.name,
        "-M",
        "q35",
        "-smp",
        "2",
        "-m",
        &memory,
    ]);
    add(&["-nodefaults", "-no-user-config", "-display", "none"]);
    add(&[
        "-kernel",
        &path(setup.image.kernel()),
        "-initrd",
        &path(setup.image.initrd()),
        "-append",
        cmdline,
    ]);
    add(&[
        "-drive",
        "file=root.qcow2,if=virtio,format=qcow2,cache=unsafe",
    ]);
    if start.records {
        // Flushes are recorded only where they are obeyed.
        add(&[
            "-drive",
            "driver=blklogwrites,file.driver=file,file.filename=boot.vfat,log.driver=file,log.filename=boot.writes,\
             log-super-update-interval=1,if=virtio,cache=writeback",
        ]);
    } else {
        add(&["-drive", "file=boot.vfat,if=virtio,format=raw,cache=unsafe"]);
    }
    add(&["-device", "virtio-rng-pci"]);
    add(&[
        "-chardev",
        "file,id=console,path=serial.log,append=on",
        "-serial",
        "chardev:console",
    ]);

    // What a kernel says as it panics survives the reset, as in the RAM of a Pi 4 with `dtoverlay=ramoops`.
    add(&[
        "-object",
        "memory-backend-file,id=erst,size=64K,mem-path=panics,share=on",
        "-device",
        "acpi-erst,memdev=erst",
    ]);
    // The watchdog's reset, like any other, ends qemu; the firmware then boots again.
    add(&[
        "-device",
        "i6300esb",
        "-action",
        "watchdog=reset,reboot=shutdown",
    ]);

    // eth0: ssh from the host, apt from the lab's repository, nothing else.
    let mut wan = format!(
        "user,id=wan,restrict=on,hostfwd=tcp:127.0.0.1:{}-:22",
        setup.ssh_port
    );
    if let Some(repository) = &setup.repository {
        let server = format!(
            "{} httpd -i -h {}",
            setup.image.busybox().display(),
            repository.display()
        );
        wan += &format!(
            ",guestfwd=tcp:10.0.2.100:80-cmd:{}",
            server.replace(',', ",,")
        );
    }
    add(&[
        "-netdev",
        &wan,
        "-device",
        "virtio-net-pci,id=eth0,netdev=wan,mac=52:54:00:00:00:01,romfile=",
    ]);

    // eth1: the LAN, and on it the launcher as the time source.
    add(&[
        "-netdev",
        &format!(
            "socket,id=lan,mcast=230.0.0.1:{},localaddr=127.0.0.1",
            setup.lan_port
        ),
    ]);
    let time = "local.type=unix,local.path=time-guest.sock,remote.type=unix,remote.path=time.sock";
    add(&["-netdev", &format!("dgram,id=time,{time}")]);
    add(&[
        "-netdev",
        "hubport,id=hub-lan,hubid=1,netdev=lan",
        "-netdev",
        "hubport,id=hub-time,hubid=1,netdev=time",
    ]);
    add(&["-netdev", "hubport,id=hub-pi,hubid=1"]);
    add(&[
        "-device",
        &format!(
            "virtio-net-pci,id=eth1,netdev=hub-pi,mac={},romfile=",
            setup.seat.mac()
        ),
    ]);

    add(&[
        "-device",
        "virtio-serial-pci",
        "-chardev",
        "socket,id=root,path=root.sock",
    ]);
    add(&["-device", "virtserialport,chardev=root,name=lab.root"]);
    // The firmware's register towards the guest, and what it says of this boot in return.
    add(&["-chardev", "socket,id=firmware,path=firmware.sock"]);
    add(&[
        "-device",
        "virtserialport,chardev=firmware,name=lab.firmware",
    ]);
    if mode == BootMode::Tryboot {
        add(&["-smbios", "type=1,sku=tryboot"]);
    }
    add(&[
        "-chardev",
        "socket,id=qmp,path=qmp.sock",
        "-mon",
        "chardev=qmp,mode=control",
    ]);

    if let Some(clock) = start.clock {
        add(&["-rtc", &format!("base={}", crate::clock::utc(clock))]);
    }
    if let Some(snapshot) = &start.snapshot {
        add(&["-incoming", &format!("exec:cat '{}'", snapshot.display())]);
    }
    arguments
}

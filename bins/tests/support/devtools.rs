//! A real browser, where there is one, with one page that a test uses as a person would.
//!
//! It is steered over the [DevTools protocol](https://chromedevtools.github.io/devtools-protocol/). All of it blocks the
//! thread.

use std::fmt::Display;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::Child;
use std::process::ChildStdin;
use std::process::Command;
use std::process::Stdio;
use std::sync::mpsc;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::Duration;

use rustix::process::Pid;
use rustix::process::Signal;
use rustix::process::kill_process_group;
use serde_json::Value;
use serde_json::json;
use tempfile::TempDir;
use tokio::time::Instant;

use crate::lines::Lines;
use crate::optional;

const BROWSER: &str = "chromium-headless-shell";
/// How long anything may take. Only a browser that hangs takes so long.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long it may take to end by itself, and to put away its own processes.
const PARTING: Duration = Duration::from_secs(10);
/// How often a page is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Whether there is a browser.
pub(crate) fn is_there() -> bool {
    optional::is_there(BROWSER)
}

/// Keys of a keyboard.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Key {
    Tab,
    ShiftTab,
    Enter,
    Space,
    Left,
    Right,
}

impl Key {
    /// Its name, its place on the keyboard, its number, and what it types.
    fn facts(self) -> (&'static str, &'static str, u32, &'static str) {
        match self {
            Self::Tab | Self::ShiftTab => ("Tab", "Tab", 9, ""),
            Self::Enter => ("Enter", "Enter", 13, "\r"),
            Self::Space => (" ", "Space", 32, " "),
            Self::Left => ("ArrowLeft", "ArrowLeft", 37, ""),
            Self::Right => ("ArrowRight", "ArrowRight", 39, ""),
        }
    }
}

/// A page in a browser of its own, which ends with it.
pub(crate) struct Page {
    browser: Child,
    /// None once it is to end.
    commands: Option<ChildStdin>,
    heard: Receiver<Value>,
    stderr: Lines,
    /// All that it told without being asked, as it came.
    events: Vec<Value>,
    session: Option<String>,
    calls: u64,
    _profile: TempDir,
}

impl Page {
    /// Starts a browser with an empty page. It finds nothing but what is served at 127.0.0.1.
    pub(crate) fn open() -> Self {
        let profile = tempfile::tempdir().expect("a directory");
        let mut command = Command::new("/bin/sh");
        // Commands are read from descriptor 3, answers and events written to 4.
        command.args(["-c", "exec \"$@\" 3<&0 4>&1 </dev/null >/dev/null", "sh", BROWSER]);
        command.args(["--remote-debugging-pipe", "--no-sandbox", "--disable-gpu"]);
        command.arg("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1");
        command.arg(format!("--user-data-dir={}", profile.path().display()));
        // It may be started by a script, which would not hand on the signal that ends it.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut browser = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let commands = browser.stdin.take();
        let told = browser.stdout.take().expect("it is piped");
        let stderr = Lines::follow(browser.stderr.take().expect("it is piped"));
        let (tell, heard) = mpsc::channel();
        // Ends with the pipe, which ends with the browser.
        thread::spawn(move || {
            for message in BufReader::new(told).split(0) {
                let message = serde_json::from_slice(&message.expect("it can be read")).expect("JSON");
                if tell.send(message).is_err() {
                    return;
                }
            }
        });
        let events = Vec::new();
        let mut page =
            Self { browser, commands, heard, stderr, events, session: None, calls: 0, _profile: profile };
        let target = page.call("Target.createTarget", json!({"url": "about:blank"}))["targetId"].take();
        let attach = json!({"targetId": target, "flatten": true});
        let session = page.call("Target.attachToTarget", attach);
        page.session = Some(session["sessionId"].as_str().expect("a session").to_owned());
        for domain in ["Page", "Runtime", "Log", "Network"] {
            page.call(&format!("{domain}.enable"), json!({}));
        }
        page.call("Page.setLifecycleEventsEnabled", json!({"enabled": true}));
        page
    }

    /// Goes to an address and waits until all of it is there.
    pub(crate) fn go(&mut self, url: impl Display) {
        let url = url.to_string();
        let went = self.call("Page.navigate", json!({"url": url}));
        assert!(went.get("errorText").is_none(), "{url}: {went}");
        let until = Instant::now() + PATIENCE;
        let is_loaded = |event: &Value| {
            event["method"] == "Page.lifecycleEvent"
                && event["params"]["name"] == "load"
                && event["params"]["loaderId"] == went["loaderId"]
        };
        while !self.events.iter().any(is_loaded) {
            let event = self.receive(until, &url);
            self.events.push(event);
        }
    }

    /// What an expression of its language is worth, once it is known.
    pub(crate) fn evaluate(&mut self, expression: impl Display) -> Value {
        let expression = expression.to_string();
        let asked = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let until = Instant::now() + PATIENCE;
        loop {
            match self.ask("Runtime.evaluate", asked.clone()) {
                Ok(mut answer) if answer.get("exceptionDetails").is_none() => {
                    return answer["result"]["value"].take();
                }
                Ok(answer) => panic!("{expression}: {answer}"),
                // Between two pages there is none to ask.
                Err(error) => assert!(Instant::now() < until, "{expression}: {error}"),
            }
            thread::sleep(LOOK);
        }
    }

    /// Waits until an expression is true.
    pub(crate) fn until(&mut self, what: &str, expression: impl Display) {
        let expression = expression.to_string();
        let until = Instant::now() + PATIENCE;
        while self.evaluate(&expression) != true {
            if Instant::now() >= until {
                let page = self.evaluate("document.documentElement.outerHTML");
                panic!("not after {PATIENCE:?}: {what}: {expression} in {page}");
            }
            thread::sleep(LOOK);
        }
    }

    /// Presses a key and lets it go.
    pub(crate) fn press(&mut self, key: Key) {
        let (name, code, number, text) = key.facts();
        let shift = if matches!(key, Key::ShiftTab) { 8 } else { 0 };
        for (kind, text) in [(if text.is_empty() { "rawKeyDown" } else { "keyDown" }, text), ("keyUp", "")] {
            let event = json!({
                "type": kind, "key": name, "code": code, "windowsVirtualKeyCode": number, "modifiers": shift,
                "text": text,
            });
            self.call("Input.dispatchKeyEvent", event);
        }
    }

    /// Has a window of this size, in CSS pixels.
    pub(crate) fn resize(&mut self, width: u32, height: u32) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", size);
    }

    /// Prefers `light` or `dark`.
    pub(crate) fn prefer(&mut self, scheme: &str) {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.call("Emulation.setEmulatedMedia", json!({"features": features}));
    }

    /// Runs no script of any page from now on. What a test evaluates runs all the same.
    pub(crate) fn forbid_scripts(&mut self) {
        self.call("Emulation.setScriptExecutionDisabled", json!({"value": true}));
    }

    /// All that stands on its console so far, and errors that nobody caught.
    pub(crate) fn console(&mut self) -> Vec<String> {
        self.told(&["Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"])
            .into_iter()
            .map(Value::to_string)
            .collect()
    }

    /// All addresses that were asked for so far and are not of this server, nor in the page itself.
    pub(crate) fn requests_elsewhere(&mut self, own: SocketAddr) -> Vec<String> {
        let own = format!("http://{own}/");
        let url = |event: &Value| event["request"]["url"].as_str().expect("a URL").to_owned();
        let urls: Vec<_> = self.told(&["Network.requestWillBeSent"]).into_iter().map(url).collect();
        assert!(urls.iter().any(|url| url.starts_with(&own)), "the page itself is among {urls:?}");
        urls.into_iter().filter(|url| !url.starts_with(&own) && !url.starts_with("data:")).collect()
    }

    fn told(&mut self, methods: &[&str]) -> Vec<&Value> {
        // What was told before this answer has been heard after it.
        self.evaluate("0");
        let of_these = |event: &&Value| methods.iter().any(|method| event["method"].as_str() == Some(method));
        self.events.iter().filter(of_these).map(|event| &event["params"]).collect()
    }

    fn call(&mut self, method: &str, params: Value) -> Value {
        self.ask(method, params).unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    fn ask(&mut self, method: &str, params: Value) -> Result<Value, Value> {
        self.calls += 1;
        let mut message = json!({"id": self.calls, "method": method, "params": params});
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        let mut message = message.to_string().into_bytes();
        message.push(0);
        let sent = self.commands.as_mut().expect("it runs").write_all(&message);
        sent.unwrap_or_else(|error| panic!("{method}: {error}; {:#?}", self.stderr.all()));
        let until = Instant::now() + PATIENCE;
        loop {
            let mut message = self.receive(until, method);
            if message["id"] == self.calls {
                return if message.get("error").is_some() {
                    Err(message["error"].take())
                } else {
                    Ok(message["result"].take())
                };
            }
            self.events.push(message);
        }
    }

    fn receive(&self, until: Instant, what: &str) -> Value {
        let left = until.saturating_duration_since(Instant::now());
        let heard = self.heard.recv_timeout(left);
        heard.unwrap_or_else(|error| {
            panic!("{what}: nothing from the browser within {PATIENCE:?}: {error}; {:#?}", self.stderr.all())
        })
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // Without anybody to hear it ends by itself.
        self.commands = None;
        let until = Instant::now() + PARTING;
        while self.browser.try_wait().is_ok_and(|status| status.is_none()) {
            if Instant::now() >= until {
                let group = i32::try_from(self.browser.id()).ok().and_then(Pid::from_raw);
                let _ = kill_process_group(group.expect("a process id"), Signal::KILL);
                let _ = self.browser.wait();
            }
            thread::sleep(LOOK);
        }
    }
}

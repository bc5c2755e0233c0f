//! What every program can say of itself: what it was built from, its page of the manual, and completions for shells.

use std::env;
use std::io;
use std::io::Write;
use std::process::ExitCode;

use clap::Arg;
use clap::ArgAction;
use clap::Command;
use clap::value_parser;
use clap_complete::Shell;
use clap_mangen::Man;

/// The section of the manual for programs that serve.
pub(crate) const DAEMONS: &str = "8";

/// Adds the arguments that ask for it.
pub fn with_about(command: Command) -> Command {
    let heading = "About";
    let command = command
        .arg(
            Arg::new("completions")
                .long("completions")
                .value_name("SHELL")
                .value_parser(value_parser!(Shell))
                .exclusive(true)
                .help("Print completions for a shell")
                .help_heading(heading),
        )
        .arg(
            Arg::new("man")
                .long("man")
                .action(ArgAction::SetTrue)
                .exclusive(true)
                .help("Print the page of the manual: `--man | man -l -`")
                .help_heading(heading),
        )
        .arg(
            Arg::new("verbose")
                .long("verbose")
                .action(ArgAction::SetTrue)
                .requires("version")
                .help("With --version: what the program was built from")
                .help_heading(heading),
        );
    if env::args_os().any(|arg| arg == "--verbose") {
        return command.version(built_from());
    }
    command
}

/// Prints what was asked for, if that is all that was. The command is the one that [`with_about`] has made.
pub fn answer(command: &Command) -> Option<ExitCode> {
    answer_in(command, DAEMONS)
}

/// As [`answer`], for a program that is in another section of the manual.
pub fn answer_in(command: &Command, section: &str) -> Option<ExitCode> {
    let as_given = command.clone();
    // Variables do not speak against it: they are set for the program, not for this question.
    let mut command = command.clone().mut_args(|arg| arg.required(false).env(None::<&str>));
    // Whatever is wrong is said by whoever reads the rest.
    let matches = command.try_get_matches_from_mut(env::args_os()).ok()?;
    let mut text = Vec::new();
    let name = command.get_name().to_owned();
    if let Some(shell) = matches.get_one::<Shell>("completions") {
        clap_complete::generate(*shell, &mut command, name, &mut text);
    } else if matches.get_flag("man") {
        text = man(as_given, section).ok()?;
    } else {
        return None;
    }
    // Nobody is left to be told that this cannot be printed.
    let _ = io::stdout().write_all(&text);
    Some(ExitCode::SUCCESS)
}

/// The page of the manual, for troff. What stands behind the options in the help are sections of their own.
///
/// # Errors
///
/// None: memory is written to.
pub fn man(command: Command, section: &str) -> io::Result<Vec<u8>> {
    let behind = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let mut subcommands = Vec::new();
    each_subcommand(&mut subcommands, &command, command.get_name())?;
    // They are not in the page otherwise.
    let command = command.mut_args(|arg| match (arg.get_visible_aliases(), arg.get_help()) {
        (Some(names), Some(help)) if !names.is_empty() => {
            let help = format!("{help} [also: --{}]", names.join(", --"));
            arg.help(help)
        }
        _ => arg,
    });
    let man = Man::new(command).section(section).manual("meshlib");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    page.append(&mut subcommands);
    sections(&mut page, &behind, ".SH")?;
    Ok(page)
}

/// A section for each subcommand, with the options that are its own.
fn each_subcommand(page: &mut Vec<u8>, command: &Command, path: &str) -> io::Result<()> {
    for subcommand in command.get_subcommands().filter(|it| !it.is_hide_set()) {
        let path = format!("{path} {}", subcommand.get_name());
        let about = subcommand.get_long_about().or_else(|| subcommand.get_about());
        let about = about.map(ToString::to_string).unwrap_or_default();
        writeln!(page, ".SH {}\n{}", escaped(&path.to_uppercase()), escaped(&about.replace('\n', " ")))?;
        let own: Vec<Arg> = subcommand.get_arguments().filter(|arg| !arg.is_global_set()).cloned().collect();
        if !own.is_empty() {
            let alone = Command::new("alone").disable_help_flag(true).args(own);
            let mut options = Vec::new();
            Man::new(alone).render_options_section(&mut options)?;
            let options = String::from_utf8_lossy(&options).into_owned();
            write!(page, "{}", options.replacen(".SH OPTIONS\n", "", 1))?;
        }
        let behind = subcommand.get_after_help().map(ToString::to_string).unwrap_or_default();
        sections(page, &behind, ".SS")?;
        each_subcommand(page, subcommand, &path)?;
    }
    Ok(())
}

/// Text with titles that end in a colon. Lines stay as they are: there are tables among them.
fn sections(page: &mut Vec<u8>, text: &str, heading: &str) -> io::Result<()> {
    for (n, line) in text.lines().enumerate() {
        match line.strip_suffix(':').filter(|line| !line.starts_with(' ')) {
            Some(title) => write!(page, ".fi\n{heading} {}\n.nf\n", escaped(&title.to_uppercase()))?,
            None if n == 0 => write!(page, ".PP\n.nf\n{}\n", escaped(line))?,
            None => writeln!(page, "{}", escaped(line.strip_prefix("  ").unwrap_or(line)))?,
        }
    }
    if text.is_empty() { Ok(()) } else { writeln!(page, ".fi") }
}

/// A line of text that troff shows as it is.
pub(crate) fn escaped(line: &str) -> String {
    let line = line.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq").replace('`', "\\`");
    // At the beginning of a line it would be a request.
    if line.starts_with('.') { format!("\\&{line}") } else { line }
}

/// The version with what it was built from and with.
fn built_from() -> String {
    let features = [
        ("linkerd-tcp", cfg!(feature = "linkerd-tcp")),
        ("tproxy-poc", cfg!(feature = "tproxy-poc")),
        ("echo-server", cfg!(feature = "echo-server")),
        ("tricot", cfg!(feature = "tricot")),
        ("meshctl", cfg!(feature = "meshctl")),
        ("tui", cfg!(feature = "tui")),
    ];
    let features: Vec<_> = features.iter().filter(|(_, is_there)| *is_there).map(|(name, _)| *name).collect();
    format!(
        "{}\ncommit    {}\ntarget    {}\ncompiler  {}\nTLS       rustls with aws-lc-rs\nfeatures  {}",
        env!("CARGO_PKG_VERSION"),
        env!("BUILT_COMMIT"),
        env!("BUILT_TARGET"),
        env!("BUILT_RUSTC"),
        features.join(" ")
    )
}

//! The `mooncake_master` command.

use std::io::Write;
use std::process::ExitCode;

use mooncake_master::flags::{self, Command, FLAGS, Settings, Support};
use mooncake_master::{logging, service::Service};
use mooncake_wire::Profile;

/// Returns the memory of removed objects to the system, which glibc's allocator keeps.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Threads of the admin server, and of whoever accepts RPC connections; those that answer calls come on top.
const HTTP_THREADS: usize = 2;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let environment = |name: &str| std::env::var(name).ok();
    let settings = match flags::parse(&arguments, &environment) {
        Ok(Command::Help) => {
            say(&help());
            return ExitCode::FAILURE;
        }
        Ok(Command::Version) => {
            let releases: Vec<_> = Profile::ALL.iter().map(|profile| profile.release()).collect();
            say(&format!(
                "mooncake_master version {} (speaks the wire of upstream {})\n",
                env!("CARGO_PKG_VERSION"),
                releases.join(" and ")
            ));
            return ExitCode::SUCCESS;
        }
        Ok(Command::Run(flags)) => {
            if let Some(path) = flags.get("config_path").filter(|path| !path.is_empty()) {
                say(&format!("Loading config from: {path}\n"));
            }
            Settings::from_flags(flags)
        }
        Err(error) => Err(error),
    };
    match settings {
        Ok(settings) => run(&settings),
        Err(error) => {
            complain(&error.text);
            ExitCode::from(error.exit_code)
        }
    }
}

/// Standard output may be closed; then nobody reads it.
fn say(text: &str) {
    drop(std::io::stdout().write_all(text.as_bytes()));
}

fn complain(text: &str) {
    drop(writeln!(std::io::stderr(), "{text}"));
}

fn help() -> String {
    let mut text = String::from("mooncake_master: the metadata service of the pool\n\n");
    for flag in FLAGS {
        let note = match flag.support {
            Support::Offered => "",
            Support::NoEffect => " [no effect here]",
            Support::Refused => " [not offered here]",
        };
        text.push_str(&format!(
            "    -{} ({}{note}) type: {} default: {}\n",
            flag.name,
            flag.help,
            flag.kind.name(),
            if flag.default.is_empty() { "\"\"" } else { flag.default }
        ));
    }
    text
}

fn run(settings: &Settings) -> ExitCode {
    if let Err(error) = logging::start(&settings.log_directory, settings.log_to_stderr, settings.log_level) {
        complain(&format!("cannot log to {}: {error}", settings.log_directory));
        return ExitCode::FAILURE;
    }
    for remark in &settings.remarks {
        log::warn!("{remark}");
    }
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        log::warn!("cannot raise the limit of open files: {error}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(HTTP_THREADS)
        .thread_name("mm-http")
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            log::error!("cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(serve(settings));
    // Calls that still run are not waited for: their answers were not sent, and the journal has what was.
    runtime.shutdown_background();
    code
}

async fn serve(settings: &Settings) -> ExitCode {
    use tokio::signal::unix::{SignalKind, signal};
    let signals =
        signal(SignalKind::terminate()).and_then(|term| Ok((term, signal(SignalKind::interrupt())?)));
    let (mut terminate, mut interrupt) = match signals {
        Ok(signals) => signals,
        Err(error) => {
            log::error!("cannot wait for signals: {error}");
            return ExitCode::FAILURE;
        }
    };
    let service = match Service::start(settings) {
        Ok(service) => service,
        Err(error) => {
            log::error!("{error}");
            if log::max_level() < log::LevelFilter::Error || !settings.log_directory.is_empty() {
                complain(&error.to_string());
            }
            return ExitCode::FAILURE;
        }
    };
    announce(settings, &service);
    tokio::select! {
        _ = terminate.recv() => log::info!("SIGTERM: stopping"),
        _ = interrupt.recv() => log::info!("SIGINT: stopping"),
    }
    service.stop();
    ExitCode::SUCCESS
}

/// The one line that says what runs, and every port with its purpose.
fn announce(settings: &Settings, service: &Service) {
    let policy = &settings.policy;
    let metadata = service.metadata_address.map_or("off".to_owned(), |address| address.to_string());
    let journal = match (settings.journal_directory.as_str(), settings.journal_sync) {
        ("", _) => "off".to_owned(),
        (directory, true) => format!("{directory} (synced)"),
        (directory, false) => directory.to_owned(),
    };
    log::info!(
        "Master service started on port {}, max_threads={}, listening: rpc={} admin_and_metrics_http={} \
         metadata_http={metadata}, wire_profile={}, default_kv_lease_ttl={}, default_kv_soft_pin_ttl={}, \
         max_kv_soft_pin_ttl={}, allow_evict_soft_pinned_objects={}, eviction_ratio={}, \
         eviction_high_watermark_ratio={}, client_ttl={}, put_start_discard_timeout_sec={}, \
         put_start_release_timeout_sec={}, allocation_strategy={:?}, metadata_budget={}, segment_ramp={}, \
         journal={journal}, memory_allocator=offset, enable_ha=false",
        service.rpc_address.port(),
        settings.threads,
        service.rpc_address,
        service.admin_address,
        settings.profile.map_or("auto", Profile::release),
        policy.lease_ttl_ms,
        policy.soft_pin_ttl_ms,
        policy.max_soft_pin_ttl_ms,
        policy.evict_soft_pinned,
        policy.eviction_ratio,
        policy.eviction_high_watermark,
        policy.client_ttl_ms / 1000,
        policy.put_discard_ms / 1000,
        policy.put_release_ms / 1000,
        policy.strategy,
        policy.metadata_budget_bytes,
        policy.ramp_ms,
    );
}

